//! The tree of znodes, and how a transaction changes it or leaves it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellwether_core::id::SessionId;
use bellwether_core::request::{RequestError, Stat};

/// One znode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Znode {
    pub(super) data: Arc<[u8]>,
    czxid: i64,
    mzxid: i64,
    version: i32,
    pub(super) owner: Option<SessionId>,
    /// How many children were ever made: the number of the next sequential one.
    counter: i32,
    pub(super) children: BTreeSet<Arc<str>>,
}

impl Znode {
    pub(super) fn stat(&self) -> Stat {
        Stat { czxid: self.czxid, mzxid: self.mzxid, version: self.version, owner: self.owner }
    }

    fn check(&self, version: Option<i32>) -> Result<(), RequestError> {
        match version {
            // −1 is the protocol's own word for "any".
            None | Some(-1) => Ok(()),
            Some(version) if version == self.version => Ok(()),
            Some(_) => Err(RequestError::BadVersion),
        }
    }
}

/// What a transaction did to the tree, for the watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Created(Arc<str>),
    Written(Arc<str>),
    Deleted(Arc<str>),
}

/// A transaction under way: what it changed, and how to take it back.
#[derive(Debug)]
pub(super) struct Transaction {
    zxid: i64,
    before: Vec<(Arc<str>, Option<Arc<Znode>>)>,
    pub(super) changes: Vec<Change>,
}

impl Transaction {
    pub(super) fn new(zxid: i64) -> Self {
        Self { zxid, before: Vec::new(), changes: Vec::new() }
    }
}

/// All znodes by path. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    nodes: BTreeMap<Arc<str>, Arc<Znode>>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::from([("/".into(), Arc::default())]) }
    }

    pub(super) fn get(&self, path: &str) -> Result<&Znode, RequestError> {
        self.nodes.get(path).map(|node| &**node).ok_or(RequestError::NoNode)
    }

    pub(super) fn check(&self, path: &str, version: Option<i32>) -> Result<(), RequestError> {
        self.get(path)?.check(version)
    }

    /// The paths of the ephemeral znodes of a session.
    pub(super) fn owned_by(&self, session: SessionId) -> Vec<Arc<str>> {
        self.nodes.iter().filter(|(_, node)| node.owner == Some(session)).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn create(
        &mut self,
        transaction: &mut Transaction,
        path: &str,
        data: Arc<[u8]>,
        owner: Option<SessionId>,
        sequential: bool,
    ) -> Result<Arc<str>, RequestError> {
        let (parent, _) = split(path);
        let parent_node = self.get(parent)?;
        let path: Arc<str> = if sequential { format!("{path}{:010}", parent_node.counter).into() } else { path.into() };
        if self.nodes.contains_key(&path) {
            return Err(RequestError::NodeExists);
        }
        if parent_node.owner.is_some() {
            return Err(RequestError::Refused("an ephemeral znode cannot have children".to_owned()));
        }
        let (_, name) = split(&path);
        let name: Arc<str> = name.into();
        self.change(transaction, parent, |node| {
            // As servers do since 3.6: it only ever grows, and at its end it stays where it is.
            node.counter = node.counter.max(node.counter.wrapping_add(1));
            node.children.insert(name);
        });
        let node = Znode { data, czxid: transaction.zxid, mzxid: transaction.zxid, owner, ..Znode::default() };
        transaction.before.push((path.clone(), None));
        self.nodes.insert(path.clone(), Arc::new(node));
        transaction.changes.push(Change::Created(path.clone()));
        Ok(path)
    }

    pub(super) fn set(
        &mut self,
        transaction: &mut Transaction,
        path: &str,
        data: Arc<[u8]>,
        version: Option<i32>,
    ) -> Result<Stat, RequestError> {
        self.check(path, version)?;
        let zxid = transaction.zxid;
        self.change(transaction, path, |node| {
            node.data = data;
            node.mzxid = zxid;
            node.version = node.version.wrapping_add(1);
        });
        transaction.changes.push(Change::Written(path.into()));
        Ok(self.get(path)?.stat())
    }

    pub(super) fn delete(
        &mut self,
        transaction: &mut Transaction,
        path: &str,
        version: Option<i32>,
    ) -> Result<(), RequestError> {
        let node = self.get(path)?;
        node.check(version)?;
        if !node.children.is_empty() {
            return Err(RequestError::NotEmpty);
        }
        let (parent, name) = split(path);
        self.change(transaction, parent, |node| {
            node.children.remove(name);
        });
        if let Some((path, node)) = self.nodes.remove_entry(path) {
            transaction.before.push((path.clone(), Some(node)));
            transaction.changes.push(Change::Deleted(path));
        }
        Ok(())
    }

    /// Sets the counter that names sequential children.
    pub(super) fn set_counter(&mut self, path: &str, counter: i32) -> Result<(), RequestError> {
        let node = self.nodes.get_mut(path).ok_or(RequestError::NoNode)?;
        Arc::make_mut(node).counter = counter;
        Ok(())
    }

    fn change(&mut self, transaction: &mut Transaction, path: &str, change: impl FnOnce(&mut Znode)) {
        if let Some((path, node)) = self.nodes.get_key_value(path) {
            let path = path.clone();
            transaction.before.push((path.clone(), Some(node.clone())));
            if let Some(node) = self.nodes.get_mut(&path) {
                change(Arc::make_mut(node));
            }
        }
    }

    /// Takes back everything that `transaction` did.
    pub(super) fn roll_back(&mut self, transaction: Transaction) {
        for (path, before) in transaction.before.into_iter().rev() {
            match before {
                Some(node) => self.nodes.insert(path, node),
                None => self.nodes.remove(&path),
            };
        }
    }
}

/// Parent and name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => ("/", path),
    }
}
