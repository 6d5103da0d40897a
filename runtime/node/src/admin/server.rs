//! Binding and serving.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::address::{AdminAddress, BadAddress};
use super::control::{Control, Nodes, One};
use super::routes::{Api, router};
use super::socket::Socket;

/// How patient the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminOptions {
    /// How many connections are served at once; more wait.
    pub connections: usize,
    /// How long a client may take to send its request's head.
    pub header: Duration,
    /// How long a call that reads may take.
    pub read: Duration,
    /// How long a resignation, or a kill, may take.
    pub change: Duration,
    /// How long a swap is waited for; compiling a large component takes a while.
    pub swap: Duration,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            connections: 64,
            header: Duration::from_secs(10),
            read: Duration::from_secs(5),
            change: Duration::from_secs(30),
            swap: Duration::from_secs(300),
        }
    }
}

/// Why the admin API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is not for this machine alone.
    #[error("the admin API cannot be served: {0}")]
    Address(#[from] BadAddress),
    /// Somebody else serves there.
    #[error(
        "the admin API cannot be served on {address}: another process serves there; is this node running already? Stop it, or \
         give this one another `node.admin`"
    )]
    InUse {
        /// The address.
        address: String,
    },
    /// Something that is no socket stands in its place.
    #[error("the admin API cannot be served on unix:{}: a file that is no socket stands there; move it away, or give another `node.admin`", .0.display())]
    NotASocket(PathBuf),
    /// The path is longer than a socket's may be.
    #[error(
        "the admin API cannot be served on unix:{}: the path has {length} bytes and a socket's path at most {max}; give a \
         shorter `node.admin`",
        path.display()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length, in bytes.
        length: usize,
        /// The longest there is.
        max: usize,
    },
    /// Anything else.
    #[error("the admin API cannot be served on {address}: {source}")]
    Bind {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
}

impl AdminError {
    pub(super) fn bind(address: String, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse { Self::InUse { address } } else { Self::Bind { address, source } }
    }

    pub(super) fn in_use(path: &Path) -> Self {
        Self::InUse { address: format!("unix:{}", path.display()) }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// The admin API, being served. Dropping it ends it at once; [`AdminServer::shutdown`] lets requests end first.
#[derive(Debug)]
pub struct AdminServer {
    address: AdminAddress,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Removes the file when all is over; none on TCP.
    socket: Option<Socket>,
}

impl AdminServer {
    /// Serves one node. The requests run on the present tokio runtime.
    ///
    /// # Errors
    /// [`AdminError`] when the address cannot be had.
    pub async fn bind(address: &AdminAddress, control: Arc<dyn Control>) -> Result<Self, AdminError> {
        Self::bind_nodes(address, Arc::new(One(control)), AdminOptions::default()).await
    }

    /// Serves the nodes of this process.
    ///
    /// # Errors
    /// [`AdminError`] when the address cannot be had.
    pub async fn bind_nodes(
        address: &AdminAddress,
        nodes: Arc<dyn Nodes>,
        options: AdminOptions,
    ) -> Result<Self, AdminError> {
        address.check()?;
        let (listener, socket, address) = match address {
            AdminAddress::Unix(path) => {
                let (listener, socket) = Socket::bind(path).await?;
                (Listener::Unix(listener), Some(socket), address.clone())
            }
            AdminAddress::Tcp(wanted) => {
                let failed = |source| AdminError::bind(wanted.to_string(), source);
                let listener = TcpListener::bind(wanted).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                (Listener::Tcp(listener), None, AdminAddress::Tcp(bound))
            }
        };
        let tcp = matches!(listener, Listener::Tcp(_));
        let (stop, stopped) = watch::channel(false);
        let app = router(Arc::new(Api { nodes, options: options.clone() }), tcp);
        let task = tokio::spawn(serve(listener, app, options, stopped));
        Ok(Self { address, stop, task, socket })
    }

    /// Where it is served: as asked for, with the port that was given if it asked for any.
    #[must_use]
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Takes no more requests, lets those under way end for at most `grace`, and cuts off the rest.
    pub async fn shutdown(mut self, grace: Duration) {
        self.stop.send_replace(true);
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = (&mut self.task).await;
        }
        drop(self.socket.take());
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: Listener, app: Router, options: AdminOptions, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(options.connections));
    // Dropped with this task when it is aborted, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, slot) = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = next(&listener, &slots) => accepted,
        };
        connections.spawn(connection(stream, app.clone(), options.clone(), stopped.clone(), slot));
    }
    // Nobody may wait in the backlog of a server that is leaving.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn next(listener: &Listener, slots: &Arc<Semaphore>) -> (Box<dyn Stream>, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there always is a permit; `None` would merely not count.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok(stream) => return (stream, slot),
            Err(error) => {
                // Mostly "too many open files": trying again at once would only burn the CPU.
                tracing::warn!(%error, "the admin API could not accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn connection(
    stream: Box<dyn Stream>,
    app: Router,
    options: AdminOptions,
    mut stopped: watch::Receiver<bool>,
    slot: Option<OwnedSemaphorePermit>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let _slot = slot;
        // One request a connection: a client that keeps its connection open would hold a slot for nothing.
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header)
            .keep_alive(false)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
        tokio::pin!(connection);
        // Whatever a client does (a body that never ends, an answer never read), its connection does.
        let whole = options.swap + options.header * 3;
        let end = tokio::time::sleep(whole);
        tokio::pin!(end);
        let mut leaving = false;
        loop {
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "an admin connection broke");
                    }
                    return;
                }
                () = &mut end => return,
                _ = stopped.wait_for(|stop| *stop), if !leaving => {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    })
}
