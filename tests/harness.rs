//! Runs the real binary on a free port and talks HTTP to it.
//!
//! Tests are built once and may run elsewhere: where the repository lies, which binary is under
//! test and on what device is then said by `SWITCHYARD_TEST_ROOT`, `_BINARY` and `_DEVICE`.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything that is bound to happen; a hang, not a slow machine, exceeds it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The repository.
pub fn root() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host/ lies in the root");
    env::var_os("SWITCHYARD_TEST_ROOT").map_or_else(|| built().to_owned(), PathBuf::from)
}

/// What runs the kernels of the binary under test.
pub fn device() -> String {
    env::var("SWITCHYARD_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// The configuration of the engine under test.
pub fn engine() -> String {
    format!("[engine]\ndevice = {:?}\nmemory = {POOL:?}\n", device())
}

/// A folder that outlives the tests; compiled kernels are kept there.
pub fn scratch() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if built.exists() { built.to_owned() } else { env::temp_dir().join("switchyard-tests") }
}

/// The binary under test, with a cache home of the tests' own.
pub fn binary() -> Command {
    let built = || env!("CARGO_BIN_EXE_switchyard").into();
    let mut command = Command::new(env::var_os("SWITCHYARD_TEST_BINARY").unwrap_or_else(built));
    command.env("XDG_CACHE_HOME", scratch());
    command
}

/// The pool of a site: tests share the device's memory.
const POOL: &str = "512MiB";

/// A folder with its own configuration, adapters and plugins, on the demo model.
pub struct Site {
    dir: TempDir,
}

impl Site {
    /// The demo's adapters and the first-party plugins, copied so that a test may change them.
    pub fn demo() -> Self {
        let site = Self::bare();
        copy_tree(&root().join("host/demo/adapters"), &site.path("adapters"));
        fs::create_dir(site.path("plugins")).expect("a plugin folder");
        for plugin in ["router-rules", "template-chatml", "parser-hermes"] {
            let component = root().join(format!("plugins/{plugin}/{plugin}.wasm"));
            fs::copy(component, site.path(&format!("plugins/{plugin}.wasm"))).expect("a component");
        }
        let config = fs::read_to_string(root().join("config.toml")).expect("config.toml");
        let base = root().join("host/demo/base").display().to_string();
        let config = config
            .replace("\"host/demo/base\"", &format!("{base:?}"))
            .replace("device = \"auto\"", &format!("device = {:?}", device()))
            .replace("memory = \"auto\"", &format!("memory = {POOL:?}"))
            .replace("\"host/demo/adapters\"", "\"adapters\"")
            .replace("\"plugins/router-rules/", "\"plugins/")
            .replace("\"plugins/template-chatml/", "\"plugins/")
            .replace("\"plugins/parser-hermes/", "\"plugins/");
        site.write("config.toml", &config);
        site
    }

    /// An empty adapter folder and the demo base, no plugins.
    pub fn bare() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let site = Self { dir };
        fs::create_dir(site.path("adapters")).expect("an adapter folder");
        let base = root().join("host/demo/base").display().to_string();
        let model = format!("[model]\npath = {base:?}\nid = \"switchyard-demo\"\n");
        site.write("config.toml", model + &engine() + "[adapters]\ndirs = [\"adapters\"]\n");
        // Adapters are each site's own, compiled kernels are not.
        let (own, kept) = (site.path("cache/switchyard"), scratch().join("kernels"));
        let made = fs::create_dir_all(&own).and_then(|()| fs::create_dir_all(&kept));
        made.and_then(|()| symlink(kept, own.join("kernels"))).expect("a cache");
        site
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file in the folder as an editor does: beside it, then over it.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let aside = self.path(&format!("{name}.new"));
        fs::write(&aside, text).expect("written");
        fs::rename(aside, self.path(name)).expect("renamed");
    }

    /// A file's text.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read")
    }

    /// Appends to the configuration.
    pub fn append_config(&self, text: &str) {
        let config = self.read("config.toml");
        self.write("config.toml", format!("{config}\n{text}\n"));
    }

    /// Copies a demo adapter in under a name, complete at once.
    pub fn add_adapter(&self, from: &Path, name: &str) {
        let aside = self.path(&format!(".{name}.new"));
        copy_tree(from, &aside);
        fs::rename(aside, self.path(&format!("adapters/{name}"))).expect("renamed");
    }

    /// Starts the host on this folder and waits until it listens.
    pub fn serve(&self, flags: &[&str]) -> Server {
        let mut command = binary();
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.arg("serve").arg("--config").arg(self.path("config.toml"));
        Server::start(command.args(flags))
    }
}

/// Copies a folder and what is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder to copy") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// A running host; killed on drop.
pub struct Server {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Runs a command that serves and waits for its address.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let sink = Arc::clone(&log);
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                sink.lock().expect("not poisoned").push_str(&std::mem::take(&mut line));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line on standard output");
        let address = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let Some(address) = address else {
            let status = child.wait().expect("it ended");
            panic!("no address but {line:?}; {status}\n{}", log.lock().expect("not poisoned"));
        };
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self { child, address, log }
    }

    /// A URL on the host.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the host ends", || {
            status = self.child.try_wait().expect("its own child");
            status.is_some()
        });
        status.expect("ended")
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// GET, as JSON.
    pub fn get(&self, path: &str) -> Reply {
        Reply::of(agent().get(self.url(path)).call().expect("a reply"))
    }

    /// POST of a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(agent().post(self.url(path)).send_json(body).expect("a reply"))
    }

    /// POST of a JSON body whose answer is read as it comes; dropping it hangs up.
    pub fn open(&self, path: &str, body: &Value) -> OpenReply {
        let response = agent().post(self.url(path)).send_json(body).expect("a reply");
        let (parts, body) = response.into_parts();
        OpenReply {
            status: parts.status.as_u16(),
            headers: headers(&parts.headers),
            lines: BufReader::new(Box::new(body.into_reader())),
        }
    }

    /// A chat of one user turn, not streamed; asserts success.
    pub fn ask(&self, model: &str, content: &str) -> Reply {
        let reply = self.post("/v1/chat/completions", &chat(model, content));
        assert_eq!(reply.status, 200, "{model}: {}", reply.body);
        reply
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the host's log ---\n{}", self.log());
        }
    }
}

/// A whole answer.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, `Null` if it is not JSON.
    pub json: Value,
    /// The body as text.
    pub body: String,
}

impl Reply {
    fn of(response: ureq::http::Response<ureq::Body>) -> Self {
        let status = response.status().as_u16();
        let headers = headers(response.headers());
        let body = response.into_body().read_to_string().expect("a whole body");
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        Self { status, headers, json, body }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of the first choice.
    pub fn content(&self) -> &str {
        self.json["choices"][0]["message"]["content"].as_str().unwrap_or_default()
    }

    /// `data:` payloads of an event stream.
    pub fn events(&self) -> Vec<&str> {
        self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }

    /// The chunks of an event stream, without the closing `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let data = self.events().into_iter().filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).expect("a JSON chunk")).collect()
    }
}

/// A greedy chat request of one user turn.
pub fn chat(model: &str, content: &str) -> Value {
    serde_json::json!({
        "model": model,
        "messages": [{ "role": "user", "content": content }],
        "temperature": 0,
        "max_tokens": 120,
    })
}

/// An answer that is still coming.
pub struct OpenReply {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    lines: BufReader<Box<dyn Read>>,
}

impl OpenReply {
    /// The next `data:` payload; `None` at the end.
    pub fn next_event(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.lines.read_line(&mut line).expect("the stream stays whole") > 0 {
            if let Some(data) = line.trim_end().strip_prefix("data: ") {
                return Some(data.to_owned());
            }
            line.clear();
        }
        None
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().new_agent()
}

fn headers(map: &ureq::http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Polls until `done`; panics with `what` when it takes longer than anything healthy does.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the binary to its end and gives its status, standard output and standard error.
pub fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut command = binary();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().and_then(Child::wait_with_output).expect("the binary runs");
    let text = |bytes: &[u8]| {
        let mut text = String::new();
        let mut bytes = bytes;
        bytes.read_to_string(&mut text).expect("UTF-8");
        text
    };
    (output.status, text(&output.stdout), text(&output.stderr))
}
