use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
/// So long nothing may come where nothing should.
const QUIET: Duration = Duration::from_millis(100);

fn write_frame(stream: &mut TcpStream, parts: &[&[u8]]) -> Result<()> {
    let body = parts.concat();
    let mut frame = u32::try_from(body.len())?.to_be_bytes().to_vec();
    frame.extend(body);
    Ok(stream.write_all(&frame)?)
}

fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Answers every frame with its first four bytes, and tells the test of it; the end of a connection is an empty frame.
fn server() -> Result<(SocketAddr, Receiver<Vec<u8>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                while let Ok(frame) = read_frame(&mut stream) {
                    if tell.send(frame.clone()).is_err() || write_frame(&mut stream, &[&frame[..4]]).is_err() {
                        return;
                    }
                }
                let _ = tell.send(Vec::new());
            });
        }
    });
    Ok((address, told))
}

struct Bed {
    proxy: Proxy,
    told: Receiver<Vec<u8>>,
}

impl Bed {
    fn new() -> Result<Self> {
        let (address, told) = server()?;
        Ok(Self { proxy: Proxy::start(address)?, told })
    }

    /// A client whose session is open.
    fn client(&self) -> Result<TcpStream> {
        let mut client = TcpStream::connect(self.proxy.address())?;
        client.set_read_timeout(Some(PATIENCE))?;
        write_frame(&mut client, &[b"open session"])?;
        ensure!(read_frame(&mut client)? == b"open");
        self.told.recv_timeout(PATIENCE)?;
        Ok(client)
    }
}

fn ask(client: &mut TcpStream, xid: i32, op: i32, body: &str) -> Result<()> {
    write_frame(client, &[&xid.to_be_bytes(), &op.to_be_bytes(), body.as_bytes()])
}

fn answer(client: &mut TcpStream) -> Result<i32> {
    Ok(i32::from_be_bytes(read_frame(client)?[..4].try_into()?))
}

fn silent(client: &mut TcpStream) -> Result<()> {
    client.set_read_timeout(Some(QUIET))?;
    let kind = read_frame(client).expect_err("nothing should have come").kind();
    client.set_read_timeout(Some(PATIENCE))?;
    ensure!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
    Ok(())
}

fn is_reset(client: &mut TcpStream) -> bool {
    read_frame(client).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn frames_pass_and_are_counted() -> Result<()> {
    let bed = Bed::new()?;
    let mut client = bed.client()?;
    for xid in 1..=3 {
        ask(&mut client, xid, op::CREATE, "/a")?;
        assert_eq!(answer(&mut client)?, xid);
    }
    assert_eq!((bed.proxy.requests(op::CREATE), bed.proxy.requests(op::MULTI), bed.proxy.accepted()), (3, 0, 1));
    Ok(())
}

#[test]
fn the_reply_to_one_request_is_lost_and_the_connection_with_it() -> Result<()> {
    let bed = Bed::new()?;
    let (mut client, mut other) = (bed.client()?, bed.client()?);
    let lost = bed.proxy.lose_reply(|request| request.creates("/election/"));
    ask(&mut client, 1, op::CREATE, "/registry/m_")?;
    ask(&mut client, 2, op::CREATE2, "/election/n_")?;
    assert_eq!(answer(&mut client)?, 1);
    assert!(is_reset(&mut client));
    lost.done(PATIENCE)?;
    // The server has done what it was asked for, and other connections know of nothing.
    assert_eq!(bed.told.recv_timeout(PATIENCE)?[4..8], op::CREATE.to_be_bytes());
    assert_eq!(bed.told.recv_timeout(PATIENCE)?[4..8], op::CREATE2.to_be_bytes());
    ask(&mut other, 3, op::CREATE2, "/election/n_")?;
    assert_eq!(answer(&mut other)?, 3);
    Ok(())
}

#[test]
fn a_request_is_held_back_with_all_behind_it() -> Result<()> {
    let bed = Bed::new()?;
    let mut client = bed.client()?;
    let held = bed.proxy.hold(|request| request.op == op::MULTI);
    ask(&mut client, 1, op::MULTI, "")?;
    ask(&mut client, 2, op::PING, "")?;
    held.seen(PATIENCE)?;
    silent(&mut client)?;
    assert!(bed.told.try_recv().is_err());
    held.release();
    assert_eq!((answer(&mut client)?, answer(&mut client)?), (1, 2));
    Ok(())
}

#[test]
fn a_stalled_direction_delivers_late_and_the_other_goes_on() -> Result<()> {
    let bed = Bed::new()?;
    let mut client = bed.client()?;
    bed.proxy.set(Link { up: Flow::Pass, down: Flow::Stall });
    ask(&mut client, 1, op::SET_DATA, "")?;
    assert_eq!(bed.told.recv_timeout(PATIENCE)?.len(), 8);
    silent(&mut client)?;
    bed.proxy.heal();
    assert_eq!(answer(&mut client)?, 1);
    bed.proxy.set(Link { up: Flow::Stall, down: Flow::Pass });
    ask(&mut client, 2, op::SET_DATA, "")?;
    silent(&mut client)?;
    assert!(bed.told.try_recv().is_err());
    bed.proxy.heal();
    assert_eq!(answer(&mut client)?, 2);
    Ok(())
}

#[test]
fn what_was_swallowed_costs_the_connection() -> Result<()> {
    let bed = Bed::new()?;
    let (mut client, mut idle) = (bed.client()?, bed.client()?);
    bed.proxy.set(Link { up: Flow::Swallow, down: Flow::Pass });
    ask(&mut client, 1, op::SET_DATA, "")?;
    silent(&mut client)?;
    bed.proxy.heal();
    assert!(is_reset(&mut client));
    assert!(bed.told.recv_timeout(PATIENCE)?.is_empty(), "the server saw the connection end and not the request");
    // Nothing of this one was lost.
    ask(&mut idle, 2, op::SET_DATA, "")?;
    assert_eq!(answer(&mut idle)?, 2);
    Ok(())
}

#[test]
fn connections_are_reset_closed_and_refused() -> Result<()> {
    let bed = Bed::new()?;
    let mut client = bed.client()?;
    bed.proxy.reset();
    assert!(is_reset(&mut client));
    let mut client = bed.client()?;
    bed.proxy.close();
    assert_eq!(client.read(&mut [0])?, 0, "a closed connection ends in order");
    bed.proxy.refuse(true);
    assert!(bed.client().is_err());
    bed.proxy.heal();
    bed.client()?;
    Ok(())
}

#[test]
fn a_delayed_frame_comes_later_and_in_order() -> Result<()> {
    let bed = Bed::new()?;
    let mut client = bed.client()?;
    bed.proxy.set(Link { up: Flow::Pass, down: Flow::Delay(Duration::from_millis(200)) });
    let sent = Instant::now();
    for xid in 1..=5 {
        ask(&mut client, xid, op::GET_DATA, "")?;
    }
    for xid in 1..=5 {
        assert_eq!(answer(&mut client)?, xid);
    }
    assert!(sent.elapsed() >= Duration::from_millis(200));
    Ok(())
}
