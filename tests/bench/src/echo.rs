//! A bare gRPC echo to compare tasks with: unary calls of tonic over HTTP/2, with the same sizes, windows and frames as the links between
//! nodes, and nothing else: no membership, no epoch, no guest.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bellwether_tests::measure::Figures;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use hyper::body::Incoming;
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, Uri, uri::PathAndQuery};
use tonic_prost::ProstCodec;

/// What nodes have as well.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
const FRAME: u32 = 64 << 10;
/// Larger than any message here.
const LARGEST: usize = 64 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
}

struct Echo;

impl tonic::server::UnaryService<Message> for Echo {
    type Response = Message;
    type Future = BoxFuture<'static, Result<tonic::Response<Message>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Message>) -> Self::Future {
        async move { Ok(tonic::Response::new(request.into_inner())) }.boxed()
    }
}

/// Serves echoes until standard input ends; says its port first, on standard output.
///
/// # Errors
/// When it cannot listen.
#[allow(clippy::print_stdout, reason = "that is how it is talked to")]
pub fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let accepting = async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(connection(stream));
            }
        };
        tokio::select! {
            _ = ended => Ok(()),
            error = accepting => error,
        }
    })
}

async fn connection(stream: TcpStream) {
    let service = hyper::service::service_fn(|request: Request<Incoming>| async {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<Message, Message>::default())
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST);
        Ok::<_, Infallible>(grpc.unary(Echo, request).await)
    });
    let mut http = server::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME);
    // Ends when its client does.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// A server in a process of its own, which ends with this.
pub struct Server {
    child: Child,
    _stdin: Option<ChildStdin>,
    address: SocketAddr,
}

impl Server {
    /// Starts `program --serve-echo`, which calls [`serve`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .arg("--serve-echo")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the echo")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("the echo has no standard output")?);
        let mut port = String::new();
        let read = BufReader::new(stdout).read_line(&mut port).map_err(anyhow::Error::from);
        // Made first, so that a server that does not come up is ended as well.
        let mut server = Self { child, _stdin: stdin, address: ([127, 0, 0, 1], 0).into() };
        read?;
        server.address.set_port(port.trim().parse().context("the echo's port")?);
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone)]
struct Connection(client::SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, hyper::Result<Response<Incoming>>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}

async fn connect(to: SocketAddr) -> Result<Grpc<Connection>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    let origin: Uri = format!("http://{to}").parse()?;
    let grpc = Grpc::with_origin(Connection(sender), origin);
    Ok(grpc.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST))
}

async fn call(grpc: &Grpc<Connection>, payload: Bytes) -> Result<()> {
    let (mut grpc, length) = (grpc.clone(), payload.len());
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/bench.Echo/Echo");
    let codec = ProstCodec::<Message, Message>::default();
    let answer = grpc.unary(tonic::Request::new(Message { payload }), path, codec).await?;
    ensure!(answer.get_ref().payload.len() == length, "an answer of another length");
    Ok(())
}

/// Hands out `pieces` of so many bytes to `servers` in turn, waits for the answers, and does so `times` times: how long each time took,
/// and all of them together.
///
/// # Errors
/// When one is not answered.
pub fn measure(servers: &[Server], bytes: usize, pieces: usize, times: usize) -> Result<(Figures, Duration)> {
    // As a node: what sends is not what carries the connections.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let connections = try_join_all(servers.iter().map(|server| connect(server.address))).await?;
        let payload = Bytes::from(vec![7; bytes]);
        let mut figures = Figures::default();
        let began = Instant::now();
        for _ in 0..times {
            let began = Instant::now();
            let calls = (0..pieces).map(|n| call(&connections[n % connections.len()], payload.clone()));
            try_join_all(calls).await?;
            figures.push(began.elapsed());
        }
        Ok::<_, anyhow::Error>((figures, began.elapsed()))
    });
    runtime.shutdown_background();
    measured.map_err(|error| anyhow!("the echo: {error:#}"))
}
