//! A plain, blocking HTTP/1.1 client over a unix socket: it sends exactly what a test says, wrong things too.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// No answer that a test waits for takes longer; a hang is a failure, not a stuck run.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where the API is. Every request makes a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    request: String,
}

impl Client {
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], None).unwrap()
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.send("DELETE", path, &[], None).unwrap()
    }

    /// A POST without a body.
    #[track_caller]
    pub fn post(&self, path: &str) -> Response {
        self.send("POST", path, &[], None).unwrap()
    }

    #[track_caller]
    pub fn post_json(&self, path: &str, body: &Value) -> Response {
        self.send(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            Some(body.to_string().as_bytes()),
        )
        .unwrap()
    }

    #[track_caller]
    pub fn post_bytes(&self, path: &str, content_type: &str, body: &[u8]) -> Response {
        self.send("POST", path, &[("Content-Type", content_type)], Some(body))
            .unwrap()
    }

    /// One request on a connection of its own, and its whole answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response> {
        let mut connection = self.connect()?;
        let mut with_close = headers.to_vec();
        with_close.push(("Connection", "close"));
        connection.request(method, path, &with_close, body)
    }

    /// A connection that serves one request after the other.
    pub fn connect(&self) -> Result<Connection> {
        let stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("no connection to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Connection {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request and returns after the head of its answer, with the stream that follows.
    pub fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Opened> {
        let mut connection = self.connect()?;
        connection.send_head(method, path, headers, body)?;
        let head = connection.read_head(&format!("{method} {path}"))?;
        Ok(Opened {
            head,
            stream: connection.stream,
        })
    }

    /// Bytes as they are, and everything that comes back until the agent closes or stays silent for a second.
    pub fn raw(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(bytes)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Opened {
    pub head: Response,
    pub stream: BufReader<UnixStream>,
}

impl Connection {
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response> {
        self.send_head(method, path, headers, body)?;
        let mut response = self.read_head(&format!("{method} {path}"))?;
        if method != "HEAD" {
            response.body = self.read_body(&response)?;
        }
        Ok(response)
    }

    fn send_head(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: berth\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if body.is_some() || method == "POST" {
            head.push_str(&format!(
                "Content-Length: {}\r\n",
                body.map_or(0, <[u8]>::len)
            ));
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(body.unwrap_or_default());
        // An agent that refuses a body may answer and close before it has read it: what counts is its answer.
        match self.stream.get_mut().write_all(&message) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ) =>
            {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    fn read_head(&mut self, request: &str) -> Result<Response> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let Some(status) = status else {
            bail!("{request}: no status in {line:?}")
        };
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("{request}: bad header {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Response {
            status,
            headers,
            body: Vec::new(),
            request: request.to_owned(),
        })
    }

    fn read_body(&mut self, head: &Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        if matches!(head.status, 100..=199 | 204 | 304) {
            return Ok(body);
        }
        if head.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line()?;
                let size =
                    usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                        .with_context(|| format!("bad chunk size {line:?}"))?;
                let mut chunk = vec![0; size];
                self.stream.read_exact(&mut chunk)?;
                body.append(&mut chunk);
                self.line()?;
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        match head.header("content-length") {
            Some(length) => {
                body.resize(length.parse()?, 0);
                self.stream.read_exact(&mut body)?;
            }
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the agent closed the connection");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl Opened {
    /// Sends on a hijacked stream.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Says that nothing more will be sent.
    pub fn finish_writing(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Everything until the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The next frame of a multiplexed stream: its number and its bytes; None at the end.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        if self.stream.fill_buf().unwrap().is_empty() {
            return None;
        }
        self.stream.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut bytes).unwrap();
        Some((header[0], bytes))
    }

    /// All frames until the end, joined per stream: standard output, standard error.
    pub fn frames(&mut self) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some((stream, mut bytes)) = self.frame() {
            if stream == 2 {
                err.append(&mut bytes)
            } else {
                out.append(&mut bytes)
            }
        }
        (
            String::from_utf8_lossy(&out).into_owned(),
            String::from_utf8_lossy(&err).into_owned(),
        )
    }
}

impl Response {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The answer, which must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{}: {error}: {}", self.request, self.text()),
        }
    }

    /// The sentence of an error's answer.
    #[track_caller]
    pub fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{}: no message in {}", self.request, self.text()))
            .to_owned()
    }
}
