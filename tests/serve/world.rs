//! A folder with a pipeline, a dashboard on it, and a client that speaks just enough HTTP.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than a busy machine takes for anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    dir: TempDir,
    environment: Vec<(&'static str, PathBuf)>,
}

impl World {
    pub(crate) fn new(pipeline: &str) -> Self {
        Self::on(pipeline, Vec::new())
    }

    /// The same on a machine that these variables describe.
    pub(crate) fn on(pipeline: &str, environment: Vec<(&'static str, PathBuf)>) -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), environment };
        std::fs::write(world.path().join("p.toml"), pipeline).unwrap();
        for pipe in ["seen", "never"] {
            mknodat(CWD, world.path().join(pipe), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null()).env_clear();
        command
            .env("PATH", std::env::var("PATH").unwrap())
            .env("HOME", self.path())
            .env("TRAINYARD_BOX", self.path().join(".box"));
        command.envs(self.environment.iter().map(|(name, path)| (*name, path.as_path())));
        command
    }

    /// Starts a run that goes on by itself, and returns its id.
    pub(crate) fn start(&self) -> String {
        let output = self.command(&["run", "p.toml", "--detach"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        self.newest()
    }

    /// Runs the pipeline until it ends, however that is.
    pub(crate) fn run_to_its_end(&self) -> String {
        self.command(&["run", "p.toml", "--quiet"]).output().unwrap();
        self.newest()
    }

    pub(crate) fn newest(&self) -> String {
        let runs = self.command(&["runs", "--json"]).output().unwrap().stdout;
        let runs: Value = serde_json::from_slice(&runs).unwrap();
        runs[0]["run"].as_str().unwrap().to_owned()
    }

    /// Lets the task go on that waits.
    pub(crate) fn go_on(&self) {
        drop(File::options().write(true).open(self.path().join("seen")).unwrap());
    }

    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve", "--port", "0"]);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let url = line.trim().to_owned();
        let (base, token) = url.split_once("/?token=").unwrap_or((url.trim_end_matches('/'), ""));
        let port = base.rsplit(':').next().unwrap().parse().unwrap();
        Server { child, url: url.clone(), token: token.to_owned(), port }
    }
}

impl Drop for World {
    /// Whatever failed, no run stays behind.
    fn drop(&mut self) {
        let _ = self.command(&["cancel", "--now"]).output();
    }
}

pub(crate) struct Server {
    child: Child,
    /// As it was printed.
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    pub(crate) fn cookie(&self) -> String {
        format!("Cookie: trainyard-{}={}", self.port, self.token)
    }

    fn send(&self, host: &str, method: &str, path: &str, headers: &[&str]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{headers}\r\n")
            .unwrap();
        stream
    }

    pub(crate) fn ask_as(&self, host: &str, method: &str, path: &str, headers: &[&str]) -> Answer {
        let mut bytes = Vec::new();
        self.send(host, method, path, headers).read_to_end(&mut bytes).unwrap();
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: bytes.split_off(at + 4) }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Answer {
        self.ask_as(&format!("127.0.0.1:{}", self.port), method, path, headers)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[&self.bearer()])
    }

    pub(crate) fn listen(&self, path: &str) -> Events {
        self.listen_from(path, "")
    }

    /// Listens as a browser does that comes back after it heard `last`.
    pub(crate) fn listen_from(&self, path: &str, last: &str) -> Events {
        let last = format!("Last-Event-ID: {last}");
        let stream = self.send(&format!("127.0.0.1:{}", self.port), "GET", path, &[&self.bearer(), &last]);
        Events { lines: BufReader::new(stream), last_id: String::new() }
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// What is told as it happens.
pub(crate) struct Events {
    lines: BufReader<TcpStream>,
    pub(crate) last_id: String,
}

impl Events {
    /// Reads on to an event of this kind that is as wanted.
    pub(crate) fn until(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut event = String::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("it comes in time") > 0, "it ended before such a {kind}");
            // Lengths of chunks and empty lines are none of these.
            if let Some(id) = line.strip_prefix("id: ") {
                id.trim().clone_into(&mut self.last_id);
            } else if let Some(name) = line.strip_prefix("event: ") {
                name.trim().clone_into(&mut event);
            } else if let (true, Some(data)) = (event == kind, line.strip_prefix("data: ")) {
                let data = serde_json::from_str(data).unwrap();
                if wanted(&data) {
                    return data;
                }
            }
        }
    }
}
