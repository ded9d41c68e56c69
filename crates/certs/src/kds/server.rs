//! A server on this machine that answers as it is told.

use crate::testing::data;
use crate::testing::pem;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What it does with one request.
pub(crate) enum Act {
    /// The right answer.
    Serve,
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing.
    Hang,
    /// A byte of a body now and then.
    Drip,
    /// A body without an end.
    Endless,
}

impl Act {
    pub(crate) fn status(status: u16, headers: &[(&str, &str)]) -> Self {
        let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = headers.concat();
        Self::Bytes(format!("HTTP/1.1 {status} Status\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes())
    }

    pub(crate) fn body(body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Acts by the script, a request each, and serves when it is at its end.
    pub(crate) fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { script: Mutex::new(script.into()), ..Shared::default() });
        let of_thread = shared.clone();
        let thread = Some(std::thread::spawn(move || accept(&listener, &of_thread)));
        Self { address, shared, thread }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The targets of all requests.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // The thread waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
        // A connection that hangs is no reason for the next one to wait.
        std::thread::spawn(move || answer(&stream, &shared));
    }
}

fn answer(stream: &TcpStream, shared: &Shared) {
    let mut lines = BufReader::new(stream).lines();
    let Some(Ok(first)) = lines.next() else { return };
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let target = first.split(' ').nth(1).unwrap_or_default().to_string();
    shared.asked.lock().unwrap().push(target.clone());
    let act = shared.script.lock().unwrap().pop_front().unwrap_or(Act::Serve);
    let mut stream = stream;
    // The client may be gone.
    let _ = match act {
        Act::Serve => stream.write_all(&served(&target)),
        Act::Bytes(bytes) => stream.write_all(&bytes),
        Act::Hang => {
            wait(shared);
            Ok(())
        }
        Act::Drip => drip(stream, shared),
        Act::Endless => endless(stream),
    };
}

fn wait(shared: &Shared) {
    while !shared.is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn drip(mut stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")?;
    while !shared.is_over.load(Ordering::Relaxed) {
        stream.write_all(b"x")?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn endless(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    loop {
        stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes())?;
    }
}

/// What the service would say.
fn served(target: &str) -> Vec<u8> {
    let body = if target.contains("Milan/cert_chain") {
        pem(&[data::MILAN_ASK, data::MILAN_ARK]).into_bytes()
    } else if target.contains("Turin/cert_chain") {
        pem(&[data::TURIN_ASK, data::TURIN_ARK]).into_bytes()
    } else if target.contains("snpSPL=20&") {
        data::MILAN_VCEK.to_vec()
    } else if target.contains("snpSPL=04&") {
        data::TURIN_VCEK.to_vec()
    } else {
        let Act::Bytes(bytes) = Act::status(404, &[]) else { return Vec::new() };
        return bytes;
    };
    let Act::Bytes(bytes) = Act::body(&body) else { return Vec::new() };
    bytes
}
