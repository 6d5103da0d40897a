//! Obtaining a component: from the store, from where its reference says, from another node.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bellwether_core::callback::Step;
use bellwether_core::id::GroupName;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::error::{Attempt, SourceError};
use crate::http::{BadAuthorities, Http, Limits};
use crate::reference::Reference;
use crate::registry;
use crate::signature::{self, MAX_FILE, Signature, Trust};
use crate::store::{Pin, Store};

/// A component as another node holds it. Nothing of it has been checked.
#[derive(Debug, Clone)]
pub struct Held {
    /// The component, as the other node says.
    pub bytes: Bytes,
    /// The signatures that came with it, in the form of a `.sig` file.
    pub signatures: String,
    /// Which node.
    pub node: String,
}

/// The other nodes of a group.
pub trait Holders: Send + Sync + 'static {
    /// Takes the component of a digest, of at most `most` bytes, from a node that holds it for the group.
    fn fetch(&self, group: GroupName, digest: Digest, most: u64) -> BoxFuture<'_, Result<Held, Vec<Attempt>>>;
}

/// How components are obtained.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Authorities beyond those that this machine trusts: a PEM file.
    pub ca: Option<PathBuf>,
    /// What it may take.
    pub limits: Limits,
    /// Whose signatures count.
    pub trust: Trust,
}

/// A component that was obtained: compared with its digest, and vouched for if that is wanted.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its digest.
    pub digest: Digest,
    /// The component.
    pub bytes: Bytes,
    /// What the reference stands for now: of an image, the image by its digest.
    pub resolved: Reference,
    /// The signatures that came with it.
    pub signatures: Vec<Signature>,
    /// The name of the trusted key that vouches for it, if one does.
    pub signer: Option<String>,
    /// Where it came from: `store`, `source` or the name of a node.
    pub from: String,
    /// How long it took to come, and to be checked.
    pub took: [(Step, Duration); 2],
    /// Keeps it in the store for as long as a copy of this lives; none where there is no store.
    pub pin: Option<Arc<Pin>>,
}

/// What may be done when the place that a reference names does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    /// Nothing: whoever asks wants to know.
    Fail,
    /// What the reference stood for last will do.
    Last,
}

/// Obtains components. Cheap to clone.
#[derive(Clone)]
pub struct Sources(Arc<Inner>);

struct Inner {
    store: Option<Store>,
    http: Http,
    trust: Trust,
    holders: OnceLock<Arc<dyn Holders>>,
    slots: Semaphore,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("store", &self.0.store).finish_non_exhaustive()
    }
}

/// What was found, not yet checked against the trust.
struct Found {
    digest: Digest,
    bytes: Bytes,
    signatures: Vec<Signature>,
    resolved: Reference,
    from: String,
}

impl Sources {
    /// Obtains components, keeping them in `store` if there is one.
    ///
    /// # Errors
    /// When the authorities cannot be used.
    pub fn new(store: Option<Store>, options: Options) -> Result<Self, BadAuthorities> {
        let http = Http::new(options.ca.as_ref(), options.limits)?;
        let slots = Semaphore::new(http.limits.at_once.max(1));
        Ok(Self(Arc::new(Inner { store, http, trust: options.trust, holders: OnceLock::new(), slots })))
    }

    /// Says whom else to ask. Once: a second call changes nothing.
    pub fn set_holders(&self, holders: Arc<dyn Holders>) {
        let _ = self.0.holders.set(holders);
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.0.store.as_ref()
    }

    /// Obtains the component that a reference names: from the store, from where the reference says, or from another node of
    /// the group, whichever comes first. If `expected` is given it must be that one. A tag of a registry is resolved anew.
    ///
    /// # Errors
    /// With every place that was asked and its reason; or because it is not vouched for.
    pub async fn obtain(
        &self,
        reference: &Reference,
        expected: Option<&Digest>,
        group: &GroupName,
    ) -> Result<Artifact, SourceError> {
        self.go(reference, expected.copied(), group, Otherwise::Fail).await
    }

    /// As [`Sources::obtain`], but if the place that the reference names does not answer, what it stood for when it was last
    /// resolved will do: for a node that starts while its registry is away.
    ///
    /// # Errors
    /// As [`Sources::obtain`].
    pub async fn obtain_or_last(&self, reference: &Reference, group: &GroupName) -> Result<Artifact, SourceError> {
        self.go(reference, None, group, Otherwise::Last).await
    }

    async fn go(
        &self,
        reference: &Reference,
        expected: Option<Digest>,
        group: &GroupName,
        otherwise: Otherwise,
    ) -> Result<Artifact, SourceError> {
        let error =
            |step, reason: String, attempts| SourceError { reference: reference.to_string(), step, reason, attempts };
        let closed = |_| error(Step::Fetch, "the node is stopping".into(), Vec::new());
        let _slot = self.0.slots.acquire().await.map_err(closed)?;
        let total = self.0.http.limits.total;
        let mut trail =
            Trail { reference, expected, group, began: Instant::now(), attempts: Vec::new(), refused: None };
        match tokio::time::timeout(total, self.search(&mut trail, otherwise)).await {
            Ok(Some(artifact)) => return Ok(artifact),
            Ok(None) => {}
            Err(_) => trail.attempts.push(Attempt::new("all of them", format!("it has not come within {total:?}"))),
        }
        let Trail { attempts, refused, .. } = trail;
        if let Some(why) = refused {
            return Err(error(Step::Verify, why, attempts));
        }
        let step = if reference.file().is_some() { Step::Read } else { Step::Fetch };
        let reason = match attempts.as_slice() {
            // A file says everything itself.
            [only] if reference.file().is_some() => only.why.clone(),
            several => {
                let tried: Vec<String> = several.iter().map(ToString::to_string).collect();
                format!("it could not be had; tried {}", tried.join("; "))
            }
        };
        Err(error(step, reason, attempts))
    }

    async fn search(&self, trail: &mut Trail<'_>, otherwise: Otherwise) -> Option<Artifact> {
        let said = trail.reference.digest();
        if let (Some(said), Some(expected)) = (said, trail.expected)
            && said != expected
        {
            let why = format!("it names {said}, and {expected} is wanted");
            trail.attempts.push(Attempt::new("the reference", why));
            return None;
        }
        let mut wanted = trail.expected.or(said);
        if let Some(digest) = wanted
            && let Some(artifact) = self.in_store(trail, digest, trail.reference.clone()).await
        {
            return Some(artifact);
        }
        if let Some(artifact) = self.where_named(trail, wanted).await {
            return Some(artifact);
        }
        if wanted.is_none()
            && otherwise == Otherwise::Last
            && let Some(record) = self.last(trail.reference).await
        {
            tracing::warn!(
                group = %trail.group, reference = %trail.reference, digest = %record.digest,
                reason = trail.attempts.last().map(ToString::to_string),
                "what the reference stands for cannot be asked now; going on with what it stood for last"
            );
            wanted = Some(record.digest);
            let resolved = record.resolved.parse().unwrap_or_else(|_| trail.reference.clone());
            if let Some(artifact) = self.in_store(trail, record.digest, resolved).await {
                return Some(artifact);
            }
        }
        self.at_others(trail, wanted?).await
    }

    async fn last(&self, reference: &Reference) -> Option<crate::store::Record> {
        let (store, reference) = (self.0.store.clone()?, reference.clone());
        // A file that is gone is a mistake of somebody's on this machine, not an outage.
        reference.file().is_none().then_some(())?;
        blocking(move || store.recorded(&reference)).await?
    }

    async fn in_store(&self, trail: &mut Trail<'_>, digest: Digest, resolved: Reference) -> Option<Artifact> {
        let store = self.0.store.clone()?;
        let held = blocking(move || store.get(&digest).map(|bytes| (bytes, store.signatures(&digest)))).await.flatten();
        let Some((bytes, signatures)) = held else {
            trail.attempts.push(Attempt::new("this node's store", "it is not there"));
            return None;
        };
        self.accept(trail, Found { digest, bytes, signatures, resolved, from: "store".into() }).await
    }

    async fn where_named(&self, trail: &mut Trail<'_>, wanted: Option<Digest>) -> Option<Artifact> {
        let limits = &self.0.http.limits;
        let reference = trail.reference.clone();
        let (place, found) = match &reference {
            Reference::Digest(_) => return None,
            Reference::File(path) => (path.display().to_string(), from_file(path, limits.bytes).await),
            Reference::Web(web) => {
                let host = web.url().host_str().unwrap_or_default().to_owned();
                let taken = match self.0.http.take(web.url(), limits.bytes).await {
                    Err(why) => Err(why),
                    Ok(bytes) => {
                        let signatures = self.0.http.optional(&web.signatures(), MAX_FILE).await;
                        Ok((bytes, parse_signatures(trail, signatures.map(|some| some.map(|text| text.to_vec())))))
                    }
                };
                (host, taken)
            }
            Reference::Image(image) => {
                let place = format!("the registry {}", image.registry());
                match registry::resolve(&self.0.http, image).await {
                    Err(why) => (place, Err(why)),
                    Ok(resolved) => return self.in_registry(trail, wanted, place, resolved).await,
                }
            }
        };
        match found {
            Ok((bytes, signatures)) => {
                let signatures = match reference {
                    Reference::File(path) => parse_signatures(trail, read_signatures(&path).await),
                    _ => signatures,
                };
                let digest = Digest::of(&bytes);
                if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
                    let why = format!(
                        "{digest} is there ({} bytes), not {wanted}: it was replaced, cut short or tampered with",
                        bytes.len()
                    );
                    trail.attempts.push(Attempt::new(place, why));
                    return None;
                }
                let resolved = trail.reference.clone();
                self.accept(trail, Found { digest, bytes, signatures, resolved, from: "source".into() }).await
            }
            Err(why) => {
                trail.attempts.push(Attempt::new(place, why));
                None
            }
        }
    }

    async fn in_registry(
        &self,
        trail: &mut Trail<'_>,
        wanted: Option<Digest>,
        place: String,
        resolved: registry::Resolved,
    ) -> Option<Artifact> {
        let digest = resolved.component;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
            let why = format!("the image holds {digest} now, not {wanted}: its tag has moved");
            trail.attempts.push(Attempt::new(place, why));
            return None;
        }
        let signatures = parse_signatures(trail, Ok(resolved.signatures.clone().map(String::into_bytes)));
        let reference = Reference::Image(resolved.image.clone());
        let kept = match self.0.store.clone() {
            Some(store) => blocking(move || store.get(&digest)).await.flatten(),
            None => None,
        };
        let (bytes, from) = match kept {
            Some(bytes) => (bytes, "store"),
            None => match registry::pull(&self.0.http, &resolved).await {
                Ok(bytes) if Digest::of(&bytes) == digest => (bytes, "source"),
                Ok(bytes) => {
                    let why = format!("it gave {} for {digest}: its blob is damaged", Digest::of(&bytes));
                    trail.attempts.push(Attempt::new(place, why));
                    return None;
                }
                Err(why) => {
                    trail.attempts.push(Attempt::new(place, why));
                    return None;
                }
            },
        };
        self.accept(trail, Found { digest, bytes, signatures, resolved: reference, from: from.into() }).await
    }

    async fn at_others(&self, trail: &mut Trail<'_>, digest: Digest) -> Option<Artifact> {
        let Some(holders) = self.0.holders.get() else {
            trail.attempts.push(Attempt::new("other nodes", "none can be asked here"));
            return None;
        };
        match holders.fetch(trail.group.clone(), digest, self.0.http.limits.bytes).await {
            Ok(held) => {
                let found = Digest::of(&held.bytes);
                if found != digest {
                    trail.attempts.push(Attempt::new(held.node, format!("it gave {found} for {digest}")));
                    return None;
                }
                let signatures = parse_signatures(trail, Ok(Some(held.signatures.into_bytes())));
                let (resolved, from) = (trail.reference.clone(), held.node);
                self.accept(trail, Found { digest, bytes: held.bytes, signatures, resolved, from }).await
            }
            Err(attempts) => {
                trail.attempts.extend(attempts);
                None
            }
        }
    }

    /// Checks who vouches for it, and keeps it.
    async fn accept(&self, trail: &mut Trail<'_>, found: Found) -> Option<Artifact> {
        let checked = Instant::now();
        let signer = match self.0.trust.check(&found.digest, &found.signatures) {
            Ok(signer) => signer.map(str::to_owned),
            Err(why) => {
                trail.attempts.push(Attempt::new(found.from, why.clone()));
                // Told unless another place has a better one.
                trail.refused = Some(why);
                return None;
            }
        };
        let Found { digest, bytes, signatures, resolved, from } = found;
        let pin = match self.0.store.clone() {
            None => None,
            Some(store) => {
                let (bytes, signatures) = (bytes.clone(), signatures.clone());
                let (group, reference, stands_for) =
                    (trail.group.to_string(), trail.reference.clone(), resolved.clone());
                let keep = move || {
                    let pin = store.pin(digest, &group);
                    let kept = store.put(&digest, &bytes, &signatures);
                    let kept = kept.and_then(|()| match reference {
                        Reference::Image(_) => store.record(&reference, digest, &stands_for),
                        _ => Ok(()),
                    });
                    if let Err(error) = kept {
                        // The node can do without; a restart may not.
                        tracing::warn!("{error}; the component is not kept");
                    }
                    pin
                };
                blocking(keep).await.map(Arc::new)
            }
        };
        if trail.reference.file().is_none() {
            tracing::info!(
                group = %trail.group, reference = %trail.reference, %digest, resolved = %resolved, %from, signer,
                bytes = bytes.len(), "obtained a component"
            );
        }
        let step = if trail.reference.file().is_some() { Step::Read } else { Step::Fetch };
        let took = [(step, checked.duration_since(trail.began)), (Step::Verify, checked.elapsed())];
        Some(Artifact { digest, bytes, resolved, signatures, signer, from, took, pin })
    }
}

/// How far a search has come.
struct Trail<'a> {
    reference: &'a Reference,
    expected: Option<Digest>,
    group: &'a GroupName,
    began: Instant,
    attempts: Vec<Attempt>,
    /// Why what was found was not taken.
    refused: Option<String>,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // Fails only if the work panicked, or the runtime ends.
    tokio::task::spawn_blocking(work).await.ok()
}

type Taken = Result<(Bytes, Vec<Signature>), String>;

async fn from_file(path: &Path, most: u64) -> Taken {
    let about = tokio::fs::metadata(path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file: build the guest, or correct the path".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    if !about.is_file() {
        return Err("is not a file; a component is one .wasm file".to_owned());
    }
    let too_large = |bytes| format!("has {bytes} bytes, more than the {most} that a component may have");
    if about.len() > most {
        return Err(too_large(about.len()));
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| format!("cannot be read: {error}"))?;
    // It may have grown meanwhile.
    if bytes.len() as u64 > most { Err(too_large(bytes.len() as u64)) } else { Ok((bytes.into(), Vec::new())) }
}

/// What stands in the `.sig` file beside a component; none if there is none.
async fn read_signatures(component: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    match tokio::fs::metadata(&name).await {
        Ok(meta) if meta.len() > MAX_FILE => Err(format!("it is larger than {MAX_FILE} bytes")),
        Ok(_) => tokio::fs::read(&name).await.map(Some).map_err(|error| format!("cannot be read: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// The signatures in a text. What cannot be read is noted, and vouches for nothing.
fn parse_signatures(trail: &mut Trail<'_>, text: Result<Option<Vec<u8>>, String>) -> Vec<Signature> {
    let parsed = match text {
        Ok(None) => return Vec::new(),
        Ok(Some(text)) => String::from_utf8(text)
            .map_err(|_| "it is not text".to_owned())
            .and_then(|text| signature::parse(&text).map_err(|error| error.to_string())),
        Err(why) => Err(why),
    };
    parsed.unwrap_or_else(|why| {
        trail.attempts.push(Attempt::new("its signatures", why));
        Vec::new()
    })
}
