//! Requests as the client library has them, and its answers and errors in our words.

use std::sync::Arc;
use std::time::Duration;

use bellwether_core::id::SessionId;
use bellwether_core::request::{CreateMode, Op, Reply, Request, RequestError, Stat};
use futures::future::{BoxFuture, FutureExt as _, ready};
use futures::stream::{BoxStream, StreamExt as _, once, unfold};
use zookeeper_client::{
    Acl, Acls, AddWatchMode, Client, Error, EventType, MultiReadResult, MultiWriteError, MultiWriteResult,
    OneshotWatcher, Permission, PersistentWatcher,
};

use super::overflow::Taken;

/// An answer: the reply, the watch that a read left, and, for the creation of an ephemeral znode, the session that owns it.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) watch: Option<Lookout>,
    pub(super) owner: Option<SessionId>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, watch: None, owner: None }
    }
}

/// What a watch waits for, with the room that it takes.
pub(super) enum Lookout {
    /// An event, in the owner's session.
    Own(OneshotWatcher, Option<Taken>),
    /// An event, or the end of the session, in one that is there for watches alone.
    Elsewhere(OneshotWatcher, Option<Taken>),
    /// So much time.
    Later(Duration),
    /// What becomes of the children of this path, in the owner's session.
    Children(PersistentWatcher, Taken, String),
}

/// What a watch tells.
pub(super) enum Told {
    /// It has fired, and is gone.
    Fired,
    /// Something has become of this child.
    Child(String),
}

impl Lookout {
    /// What the watch tells, in order, to its end. Without a word, it is the end of the owner's session, which is told as such.
    pub(super) fn tells(self) -> BoxStream<'static, Told> {
        match self {
            Self::Own(watcher, taken) => once(async move {
                let _taken = taken;
                (watcher.changed().await.event_type != EventType::Session).then_some(Told::Fired)
            })
            .filter_map(ready)
            .boxed(),
            Self::Elsewhere(watcher, taken) => once(async move {
                let _taken = taken;
                watcher.changed().await;
                Told::Fired
            })
            .boxed(),
            Self::Later(pause) => once(async move {
                tokio::time::sleep(pause).await;
                Told::Fired
            })
            .boxed(),
            Self::Children(watcher, taken, path) => {
                let path: Arc<str> = path.into();
                unfold(Some((watcher, taken)), move |watch| children(watch, path.clone())).boxed()
            }
        }
    }
}

type Watching = Option<(PersistentWatcher, Taken)>;

/// The next thing that has become of a child; or of the znode itself, which is the last.
async fn children(watch: Watching, path: Arc<str>) -> Option<(Told, Watching)> {
    let (mut watcher, taken) = watch?;
    loop {
        let event = watcher.changed().await;
        match event.event_type {
            // The library panics if it is asked for more.
            EventType::Session if event.session_state.is_terminated() => return None,
            // The first, of the connection, is told as such; the second, from some servers, of what is told by name as well.
            EventType::Session | EventType::NodeChildrenChanged => {}
            _ if event.path == *path => return Some((Told::Fired, None)),
            _ => {
                let below = event.path.strip_prefix(&*path).map(|below| below.trim_start_matches('/'));
                if let Some(name) = below.filter(|name| !name.contains('/')) {
                    return Some((Told::Child(name.to_owned()), Some((watcher, taken))));
                }
            }
        }
    }
}

/// Why there is no answer.
pub(super) struct Failure {
    pub(super) error: RequestError,
    /// The error proves that the connection was lost.
    pub(super) disconnected: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let disconnected = matches!(error, Error::ConnectionLoss | Error::Custom(_));
        Self { error: translate(error), disconnected }
    }
}

/// There will be no answer.
pub(super) fn lost() -> Failure {
    let error = RequestError::Unknown("the connection to ZooKeeper was lost before the answer came".to_owned());
    Failure { error, disconnected: true }
}

pub(super) type Pending = BoxFuture<'static, Result<Answer, Failure>>;

static OWN: [Acl; 2] =
    [Acl::new_const(Permission::ALL, "auth", ""), Acl::new_const(Permission::READ, "world", "anyone")];

/// Who may do what with a znode that we make.
pub(super) fn acls(authenticated: bool) -> Acls<'static> {
    if authenticated { Acls::new(&OWN) } else { Acls::anyone_all() }
}

/// The request as a future. The library sends it when the future is polled for the first time; poll it at once to keep
/// the order. `taken` is the room for the watch that it leaves, if it does.
pub(super) fn prepare(client: Client, acls: Acls<'static>, request: Request, taken: Option<Taken>) -> Pending {
    async move { Ok(perform(&client, acls, request, taken).await?) }.boxed()
}

async fn perform(
    client: &Client,
    acls: Acls<'static>,
    request: Request,
    taken: Option<Taken>,
) -> Result<Answer, ClientError> {
    Ok(match request {
        Request::Create { path, data, mode } => create(client, acls, path, &data, mode).await?,
        Request::Delete { path, version } => {
            client.delete(&path, version).await?;
            Reply::Deleted.into()
        }
        Request::Set { path, data, version } => {
            Reply::Written(stat(&client.set_data(&path, &data, version).await?)).into()
        }
        Request::Get { path, watch: false } => {
            let (data, found) = client.get_data(&path).await?;
            Reply::Data { data: Arc::from(data), stat: stat(&found) }.into()
        }
        Request::Get { path, watch: true } => {
            let (data, found, watcher) = client.get_and_watch_data(&path).await?;
            let reply = Reply::Data { data: Arc::from(data), stat: stat(&found) };
            Answer { reply, watch: Some(Lookout::Own(watcher, taken)), owner: None }
        }
        Request::GetAll { paths } => get_all(client, &paths).await?.into(),
        Request::List { path, watch: false } => {
            let (names, found) = client.get_children(&path).await?;
            Reply::Children { names, stat: stat(&found) }.into()
        }
        Request::List { path, watch: true } => {
            let (names, found, watcher) = client.get_and_watch_children(&path).await?;
            let reply = Reply::Children { names, stat: stat(&found) };
            Answer { reply, watch: Some(Lookout::Own(watcher, taken)), owner: None }
        }
        Request::WatchChildren { path } => {
            let watcher = client.watch(&path, AddWatchMode::PersistentRecursive).await?;
            let watch = taken.map(|taken| Lookout::Children(watcher, taken, path));
            Answer { reply: Reply::Watching, watch, owner: None }
        }
        Request::Sync { path } => {
            client.sync(&path).await?;
            Reply::Synced.into()
        }
        Request::Multi(ops) => multi(client, acls, ops).await?.into(),
    })
}

async fn create(
    client: &Client,
    acls: Acls<'static>,
    path: String,
    data: &[u8],
    mode: CreateMode,
) -> Result<Answer, Error> {
    let options = match mode {
        CreateMode::Persistent => zookeeper_client::CreateMode::Persistent,
        CreateMode::Ephemeral => zookeeper_client::CreateMode::Ephemeral,
        CreateMode::EphemeralSequential => zookeeper_client::CreateMode::EphemeralSequential,
    }
    .with_acls(acls);
    let (made, sequence) = client.create(&path, data, &options).await?;
    let path = match mode {
        CreateMode::EphemeralSequential => format!("{path}{sequence}"),
        CreateMode::Persistent | CreateMode::Ephemeral => path,
    };
    Ok(Answer { reply: Reply::Created { path }, watch: None, owner: stat(&made).owner })
}

async fn get_all(client: &Client, paths: &[String]) -> Result<Reply, Error> {
    let mut reader = client.new_multi_reader();
    for path in paths {
        reader.add_get_data(path)?;
    }
    let found = reader.commit().await?.into_iter().map(|found| match found {
        MultiReadResult::Data { data, stat: found } => Ok(Some((Arc::from(data), stat(&found)))),
        MultiReadResult::Error { err: Error::NoNode } => Ok(None),
        MultiReadResult::Error { err } => Err(err),
        _ => Err(Error::MarshallingError),
    });
    Ok(Reply::Found(found.collect::<Result<_, _>>()?))
}

async fn multi(client: &Client, acls: Acls<'static>, ops: Vec<Op>) -> Result<Reply, ClientError> {
    let persistent = zookeeper_client::CreateMode::Persistent.with_acls(acls);
    let mut writer = client.new_multi_writer();
    for op in &ops {
        match op {
            Op::Check { path, version } => writer.add_check_version(path, version.unwrap_or(-1))?,
            Op::Create { path, data } => writer.add_create(path, data, &persistent)?,
            Op::Set { path, data, version } => writer.add_set_data(path, data, *version)?,
            Op::Delete { path, version } => writer.add_delete(path, *version)?,
        }
    }
    let results = writer.commit().await?;
    let stats = results.iter().map(|result| match result {
        MultiWriteResult::SetData { stat: written } => Some(stat(written)),
        _ => None,
    });
    Ok(Reply::Multi(stats.collect()))
}

/// An error of a single request or of one operation of several.
enum ClientError {
    Single(Error),
    Operation(usize, Error),
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        Self::Single(error)
    }
}

impl From<MultiWriteError> for ClientError {
    fn from(error: MultiWriteError) -> Self {
        match error {
            MultiWriteError::RequestFailed { source } => Self::Single(source),
            MultiWriteError::OperationFailed { index, source } => Self::Operation(index, source),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Single(error) => error.into(),
            ClientError::Operation(index, error) => {
                let error = RequestError::Multi { index, error: Box::new(translate(error)) };
                Self { error, disconnected: false }
            }
        }
    }
}

fn stat(stat: &zookeeper_client::Stat) -> Stat {
    let owner = (stat.ephemeral_owner != 0).then_some(SessionId(stat.ephemeral_owner));
    Stat { czxid: stat.czxid, mzxid: stat.mzxid, version: stat.version, owner }
}

/// Every error that does not prove that nothing was done means: unknown.
pub(super) fn translate(error: Error) -> RequestError {
    match error {
        Error::NoNode => RequestError::NoNode,
        Error::NodeExists => RequestError::NodeExists,
        Error::BadVersion => RequestError::BadVersion,
        Error::NotEmpty => RequestError::NotEmpty,
        Error::NoAuth => RequestError::NoAuth,
        Error::NoChildrenForEphemerals => RequestError::Refused("an ephemeral znode cannot have children".to_owned()),
        Error::InvalidAcl => {
            RequestError::Refused("the server does not accept the ACL: it did not take our credentials".to_owned())
        }
        Error::SessionExpired | Error::AuthFailed | Error::ClientClosed => RequestError::SessionEnded,
        refused @ (Error::BadArguments(_)
        | Error::NotReadOnly
        | Error::QuotaExceeded
        | Error::Throttled
        | Error::MarshallingError
        | Error::Unimplemented) => RequestError::Refused(refused.to_string()),
        unknown => RequestError::Unknown(unknown.to_string()),
    }
}
