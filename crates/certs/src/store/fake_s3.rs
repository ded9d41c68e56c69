//! A bucket on this machine, with the conditional writes of the S3 protocol.

use crate::identity::hex;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Shared {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// `method key condition` of each request.
    asked: Mutex<Vec<String>>,
    is_forbidden: Mutex<bool>,
}

/// The server. Its thread ends with the process.
pub(super) struct FakeS3 {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeS3 {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = of_thread.clone();
                std::thread::spawn(move || answer(&stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.shared.objects.lock().unwrap().keys().cloned().collect()
    }

    pub(super) fn forbid(&self) {
        *self.shared.is_forbidden.lock().unwrap() = true;
    }
}

fn answer(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if reader.read_line(&mut first).is_err() {
        return;
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.trim().split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_string());
        }
    }
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.trim_start_matches('/').to_string();
    let condition = ["if-none-match", "if-match"]
        .iter()
        .find_map(|name| headers.get(*name).map(|value| format!("{name} {value}")));
    let condition = condition.unwrap_or_default();
    shared.asked.lock().unwrap().push(format!("{method} {key} {condition}").trim().to_string());
    let (status, headers, body) = if *shared.is_forbidden.lock().unwrap() {
        ("403 Forbidden", String::new(), Vec::new())
    } else {
        act(shared, method, (&key, query), &condition, body)
    };
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    // The client may be gone.
    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
}

fn act(
    shared: &Shared,
    method: &str,
    (key, query): (&str, &str),
    condition: &str,
    body: Vec<u8>,
) -> (&'static str, String, Vec<u8>) {
    let mut objects = shared.objects.lock().unwrap();
    let tag = |bytes: &[u8]| format!("\"{}\"", &hex(&Sha256::digest(bytes))[..32]);
    if let Some(prefix) = query.split('&').find_map(|part| part.strip_prefix("prefix=")) {
        let prefix = format!("{key}/{}", prefix.replace("%2F", "/"));
        let contents = objects.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(name, bytes)| {
            let (name, size, tag) =
                (name.trim_start_matches(key).trim_start_matches('/'), bytes.len(), tag(bytes));
            format!(
                "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <ETag>{tag}</ETag><Size>{size}</Size></Contents>"
            )
        });
        let xml = format!("<ListBucketResult>{}</ListBucketResult>", contents.collect::<Vec<_>>().concat());
        return ("200 OK", "Content-Type: application/xml\r\n".into(), xml.into_bytes());
    }
    let found = objects.get(key).map(|bytes| tag(bytes));
    let headers = |tag: &str| format!("ETag: {tag}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
    match method {
        "PUT" => {
            let holds = match condition.split_once(' ') {
                Some(("if-none-match", _)) => found.is_none(),
                Some((_, wanted)) => found.as_deref() == Some(wanted),
                None => true,
            };
            if !holds {
                return ("412 Precondition Failed", String::new(), Vec::new());
            }
            let headers = headers(&tag(&body));
            objects.insert(key.into(), body);
            ("200 OK", headers, Vec::new())
        }
        "GET" => match (objects.get(key), found) {
            (Some(bytes), Some(tag)) => ("200 OK", headers(&tag), bytes.clone()),
            _ => ("404 Not Found", String::new(), Vec::new()),
        },
        _ => ("405 Method Not Allowed", String::new(), Vec::new()),
    }
}
