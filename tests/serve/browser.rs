//! The dashboard in a real browser, where there is one: `CHROMIUM`, or Chromium or Chrome on the `PATH`.
//!
//! It is driven over a pair of pipes with Chromium's own protocol: a JSON object with a zero byte behind it each way.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use mock_nvml::{Card, Scene};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::world::{PATIENCE, World};

/// Names and logs that would do something if they were taken for markup, and tasks that wait.
const HOSTILE: &str = r#"
name = "hostile"
[defaults]
timeout = "300s"
[stage.train]
run = "echo '<script>window.owned=1</script><img src=x onerror=window.owned=2>'; echo 'Epoch 1/2 - loss: 0.25'; cat seen"
matrix = { mark = ["<img src=x onerror=window.owned=3>"] }
resources = { cpus = 0 }
[stage.hold]
run = "echo holding; cat never"
after = ["train"]
resources = { cpus = 0 }
"#;

struct Browser {
    child: Child,
    _dir: TempDir,
    to: File,
    from: File,
    read: Vec<u8>,
    session: Option<String>,
    next: u64,
}

fn found() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Some(named.into());
    }
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    all.find(|file| file.is_file())
}

impl Browser {
    /// Starts a browser; `None`, and a word about it, where there is none that starts.
    fn start() -> Option<Self> {
        let Some(program) = found() else {
            eprintln!("skipped: no browser is here (CHROMIUM names one)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        for pipe in ["to", "from"] {
            mknodat(CWD, dir.path().join(pipe), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        // The protocol is spoken at descriptors 3 and 4.
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("exec \"$0\" \"$@\" 3<to 4>from").arg(&program);
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]);
        command.args(["--no-first-run", "--disable-background-networking", "--window-size=1400,1000"]);
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display())).arg("about:blank");
        command.current_dir(dir.path()).env("HOME", dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        // For both ways, so that opening does not wait for a browser that never comes.
        let open = |pipe| File::options().read(true).write(true).open(dir.path().join(pipe)).unwrap();
        let (to, from) = (open("to"), open("from"));
        let mut browser = Self { child, to, from, read: Vec::new(), session: None, next: 0, _dir: dir };
        let Some(target) = browser.call("Target.createTarget", json!({"url": "about:blank"})) else {
            eprintln!("skipped: {} does not start here", program.display());
            return None;
        };
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).unwrap();
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        browser.call("Page.enable", json!({})).unwrap();
        Some(browser)
    }

    /// Calls a method; `None` when the browser is gone.
    fn call(&mut self, method: &str, params: Value) -> Option<Value> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).ok()?;
        loop {
            let message = self.message()?;
            if message["id"] == self.next {
                return Some(message["result"].clone());
            }
        }
    }

    fn message(&mut self) -> Option<Value> {
        let begun = Instant::now();
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&message[..end]).unwrap());
            }
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&self.from, PollFlags::IN)], Some(&second)).unwrap() == 0 {
                if self.child.try_wait().unwrap().is_some() {
                    return None;
                }
                assert!(begun.elapsed() < PATIENCE, "the browser says nothing");
                continue;
            }
            let mut piece = [0; 1 << 16];
            let length = self.from.read(&mut piece).unwrap();
            self.read.extend_from_slice(&piece[..length]);
        }
    }

    fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).unwrap();
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        self.call("Runtime.evaluate", asked).unwrap()["result"]["value"].clone()
    }

    /// Asserts that the page can be used by ear: it has its landmarks and one title, and whatever can be pressed, chosen
    /// or filled in has a name.
    fn assert_accessible(&mut self, page: &str) {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).unwrap();
        let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true);
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        let nodes: Vec<(String, String)> = nodes.map(|node| (text(node, "role"), text(node, "name"))).collect();
        let count = |role: &str| nodes.iter().filter(|(own, _)| own == role).count();
        assert_eq!((count("banner"), count("main")), (1, 1), "{page}: {nodes:?}");
        assert!(count("navigation") >= 1, "{page}: {nodes:?}");
        const USED: [&str; 8] =
            ["button", "link", "checkbox", "combobox", "searchbox", "textbox", "image", "progressbar"];
        let nameless = nodes.iter().filter(|(role, name)| USED.contains(&role.as_str()) && name.trim().is_empty());
        assert_eq!(nameless.count(), 0, "{page}: {nodes:?}");
        assert_eq!(self.evaluate("document.querySelectorAll('h1').length"), 1, "{page}");
        let untitled = "[...document.querySelectorAll('section, aside, dialog')].filter(one => !one.ariaLabel && \
            !document.getElementById(one.getAttribute('aria-labelledby'))).length";
        assert_eq!(self.evaluate(untitled), 0, "{page}: every part says what it is");
    }

    /// Waits until something holds on the page, also over a change of pages.
    fn until(&mut self, holds: &str) {
        let begun = Instant::now();
        let looked = format!(
            "new Promise(done => {{ let n = 0; const look = () => (({holds}) || ++n > 40 ? done(Boolean({holds})) : setTimeout(look, 50)); look(); }})"
        );
        while self.evaluate(&looked) != true {
            let page = self.evaluate("document.body.innerText.slice(0, 3000)");
            assert!(begun.elapsed() < PATIENCE, "never {holds}, but {page}");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("Browser.close", json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_browser_follows_a_run_ends_it_and_runs_nothing_that_a_task_says() {
    let Some(mut browser) = Browser::start() else { return };
    let world = World::new(HOSTILE);
    let run = world.start();
    let server = world.serve(&[]);
    let base = format!("http://127.0.0.1:{}", server.port);

    browser.go(&format!("{base}/?token=wrong"));
    browser.until("document.title.startsWith('Token needed') && document.querySelector('form')");
    browser.go(&format!("{base}/runs/{run}"));
    browser.until("document.title.startsWith('Token needed')");

    browser.go(&server.url);
    browser.until("document.querySelector('td.name a')");
    assert_eq!(browser.evaluate("location.href.includes('token') || document.cookie.includes('trainyard')"), false);
    assert_eq!(browser.evaluate("document.querySelector('td.name a').textContent"), "hostile");

    // By keyboard.
    browser.evaluate("document.querySelector('td.name a').focus(), document.activeElement.click()");
    browser.until("document.querySelector('h1')?.textContent === 'hostile'");
    browser.until("document.getElementById('link').textContent === 'live'");
    browser.until("document.querySelector('.log').textContent.includes('<script>window.owned=1</script><img')");
    browser.until("document.querySelector('.chips').textContent.includes('1 running')");
    browser.until("document.querySelector('.detail h2').textContent.includes('<img src=x onerror=window.owned=3>')");
    browser.until("document.querySelector('td progress')?.value === 0.5 || document.querySelector('.node .note').textContent.includes('50 %')");
    browser.assert_accessible("a run");
    browser.evaluate("window.same = true");

    world.go_on();
    browser.until("document.querySelector('.chips').textContent.includes('1 succeeded')");
    browser.until("[...document.querySelectorAll('.node')].some(node => node.textContent.includes('hold') && node.classList.contains('is-running'))");
    assert_eq!(browser.evaluate("window.same"), true, "the page was not loaded anew");

    browser.until("!document.querySelector('button.danger').hidden");
    browser.evaluate("document.querySelector('.head button.danger').click()");
    browser.until("document.querySelector('dialog').open");
    browser.evaluate("document.getElementById('end').click()");
    browser.until("document.querySelector('.head .badge').textContent === 'interrupted'");

    for path in ["/", "/devices", "/compare"] {
        browser.evaluate(&format!("document.querySelector('nav a[href=\"{path}\"]').click()"));
        browser.until(&format!(
            "location.pathname === '{path}' && document.querySelector('h1') && !document.querySelector('.gantt')"
        ));
        browser.assert_accessible(path);
    }
    assert_eq!(browser.evaluate("window.owned === undefined && window.same === true"), true);
    let wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.evaluate(wide), true, "nothing hangs over the edge");
}

#[test]
fn what_failed_is_tried_again_from_the_page() {
    let Some(mut browser) = Browser::start() else { return };
    let world = World::new(super::FAILS_ONCE);
    let run = world.run_to_its_end();
    let server = world.serve(&[]);
    browser.go(&server.url);
    browser.until("document.querySelector('td.name a')");
    browser.evaluate("document.querySelector('td.name a').click()");
    browser.until("document.querySelector('.head .badge')?.textContent === 'failed'");
    browser.until(&format!("location.pathname === '/runs/{run}'"));
    browser.until("document.querySelector('.detail h2').textContent === 'train'");
    browser.until("document.querySelector('.log').textContent.includes('ValueError: nan')");
    // Of the task that failed, and the same question as that of the whole run.
    browser.until("document.querySelector('.detail .title button')?.hidden === false");
    browser.evaluate("document.querySelector('.detail .title button').click()");
    browser.until("document.getElementById('retrying').closest('dialog').open");
    browser.evaluate("document.activeElement.click()");
    browser.until("!document.getElementById('retrying').closest('dialog').open");
    assert_eq!(
        browser.evaluate("document.querySelector('.head .badge').textContent"),
        "failed",
        "nothing was asked for"
    );
    browser.evaluate("document.querySelector('.detail .title button').click()");
    browser.until("document.getElementById('retrying').closest('dialog').open");
    browser.evaluate("document.getElementById('retry').click()");
    browser.until("document.querySelector('.head .badge').textContent === 'succeeded'");
    browser.until("document.querySelector('.chips').textContent.includes('2 succeeded')");
    browser.until("document.querySelector('.detail .title button').hidden && [...document.querySelectorAll('.head button')].every(button => button.hidden)");
}

#[test]
fn on_a_phone_nothing_hangs_over_and_memory_and_plans_are_there() {
    let Some(mut browser) = Browser::start() else { return };
    let scene = Scene::new(vec![Card { nobodys_mib: 5 << 10, ..Card::default() }; 2]).unwrap();
    let pipeline = "[stage.train]\nrun = 'echo trained'\nresources = { gpu_memory = '60GiB' }\n\
        [stage.evaluate-with-a-name-that-is-longer-than-a-phone-is-wide]\nrun = 'echo 0.9'\nafter = ['train']\n";
    let world = World::on(pipeline, scene.environment());
    let (_, run) = (world.run_to_its_end(), world.run_to_its_end());
    let server = world.serve(&[]);
    let phone = json!({"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": true});
    browser.call("Emulation.setDeviceMetricsOverride", phone).unwrap();
    browser.go(&server.url);
    browser.until("document.querySelectorAll('td.name a').length === 2");
    let base = format!("http://127.0.0.1:{}", server.port);
    let pages = [
        ("/".to_owned(), "document.querySelectorAll('td.name a').length === 2"),
        // Of the device that a task had, though the other one was watched as well.
        (
            format!("/runs/{run}"),
            "document.querySelectorAll('.memory figure').length === 1 && document.querySelector('.log').textContent.includes('0.9')",
        ),
        ("/compare".to_owned(), "document.querySelectorAll('.plans figure').length === 2"),
        ("/devices".to_owned(), "document.querySelectorAll('.gpu').length === 2"),
    ];
    for (path, there) in pages {
        browser.go(&format!("{base}{path}"));
        browser.until(there);
        let wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(browser.evaluate(wide), true, "{path} hangs over the edge");
        browser.assert_accessible(&path);
    }
}
