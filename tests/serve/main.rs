//! The dashboard over HTTP, as anybody could ask it: who is let in, what is told, and how soon.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

mod browser;
mod world;

use mock_nvml::{Card, Scene};
use serde_json::Value;
use world::{Answer, World};

/// A task that waits until the pipe `seen` is opened, and one after it.
const TWO: &str = r#"
name = "digits"
[defaults]
timeout = "300s"
[stage.train]
run = "echo hello from train; cat seen; echo bye"
resources = { cpus = 0 }
[stage.evaluate]
run = "echo done"
after = ["train"]
resources = { cpus = 0 }
"#;

/// Over at once.
const QUICK: &str =
    "name = 'quick'\n[stage.only]\nrun = 'echo one; echo two'\n[stage.next]\nrun = 'exit 3'\nafter = ['only']\n";

fn refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.json()["error"].is_string());
}

#[test]
fn without_the_token_nothing_is_told() {
    let world = World::new(TWO);
    let server = world.serve(&[]);
    for path in ["/", "/web/app.js", "/api/runs", "/api/about", "/runs/x", "/nothing", "/api/events", "/metrics"] {
        assert_eq!(server.ask("GET", path, &[]).status, 401, "{path}");
        assert_eq!(server.ask("GET", path, &["Authorization: Bearer 0123456789abcdef0123456789abcdef"]).status, 401);
        assert_eq!(server.ask("GET", path, &[&format!("Cookie: trainyard-{}=wrong", server.port)]).status, 401);
    }
    assert_eq!(server.ask("POST", "/web/app.css", &[]).status, 405);
    let wrong = server.ask("GET", "/?token=wrong", &["Accept: text/html"]);
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("set-cookie").is_none() && wrong.text().contains("<form"), "{}", wrong.text());
    for path in ["/", "/web/app.js", "/api/runs", "/devices"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn the_printed_address_gives_a_cookie_that_no_script_and_no_other_site_gets() {
    let world = World::new(QUICK);
    let server = world.serve(&[]);
    let entered = server.ask("GET", &format!("/?token={}", server.token), &[]);
    let cookie = entered.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert!(!entered.text().contains(&server.token), "the token is not on the page");
    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(server.ask("GET", "/api/runs", &[&cookie]).status, 200);
    let elsewhere = server.ask_as("evil.example", "GET", &format!("/?token={}", server.token), &[]);
    assert!(elsewhere.status == 421 && elsewhere.header("set-cookie").is_none());
}

#[test]
fn a_name_that_leads_here_by_accident_is_refused() {
    let world = World::new(QUICK);
    let server = world.serve(&["--host", "gpu.example"]);
    let bearer = server.bearer();
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"] {
        refused(&server.ask_as(&format!("{host}:{}", server.port), "GET", "/api/runs", &[&bearer]), 421);
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]", "gpu.example"] {
        assert_eq!(server.ask_as(host, "GET", "/api/runs", &[&bearer]).status, 200, "{host}");
    }
}

#[test]
fn every_answer_forbids_what_could_do_harm() {
    let world = World::new(QUICK);
    let server = world.serve(&[]);
    let answers = [server.get("/"), server.get("/api/runs"), server.get("/none"), server.ask("GET", "/", &[])];
    for answer in answers {
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let page = server.get("/").text();
    assert!(!page.contains("<script>") && !page.contains("style="), "nothing inline");
}

#[test]
fn a_run_is_ended_only_with_the_token_and_from_the_same_origin() {
    let world = World::new(TWO);
    let run = world.start();
    let server = world.serve(&[]);
    let path = format!("/api/runs/{run}/cancel");
    let cookie = server.cookie();
    refused(&server.ask("POST", &path, &[]), 401);
    refused(&server.ask("POST", &path, &[&cookie]), 403);
    refused(&server.ask("POST", &path, &[&cookie, "Origin: http://evil.example"]), 403);
    refused(&server.ask("POST", &path, &[&cookie, "Origin: null"]), 403);
    refused(&server.ask("POST", &path, &["Origin: http://localhost", "Authorization: Bearer wrong"]), 401);
    assert_eq!(server.ask("GET", &path, &[&cookie]).status, 405, "no link ends a run");
    assert_eq!(server.get(&format!("/api/runs/{run}")).json()["state"], "running");
    refused(&server.ask("POST", "/api/runs/none/cancel", &[&server.bearer()]), 404);

    let mut events = server.listen(&format!("/api/runs/{run}/events"));
    let origin = format!("Origin: http://127.0.0.1:{}", server.port);
    assert_eq!(server.ask("POST", &path, &[&cookie, &origin, "Sec-Fetch-Site: same-origin"]).status, 202);
    let last = events.until("change", |change| change["run"]["state"] != "running");
    assert_eq!(last["run"]["state"], "interrupted");
    refused(&server.ask("POST", &path, &[&server.bearer()]), 409);
}

#[test]
fn without_a_token_everybody_here_may_look_and_nobody_may_act() {
    let world = World::new(TWO);
    let run = world.start();
    let server = world.serve(&["--no-token"]);
    assert_eq!(server.ask("GET", "/api/runs", &[]).json()[0]["run"], run.as_str());
    assert_eq!(server.ask("GET", "/api/about", &[]).json()["writes"], false);
    let origin = format!("Origin: http://127.0.0.1:{}", server.port);
    refused(&server.ask("POST", &format!("/api/runs/{run}/cancel"), &[&origin]), 403);
    let open = world.command(&["serve", "--no-token", "--bind", "0.0.0.0", "--port", "0"]).output().unwrap();
    assert_eq!(open.status.code(), Some(2), "{}", String::from_utf8_lossy(&open.stderr));
}

#[test]
fn a_token_may_come_from_a_file() {
    let world = World::new(QUICK);
    let file = world.path().join("token");
    std::fs::write(&file, "short").unwrap();
    let serve = ["serve", "--port", "0", "--token-file", "token"];
    assert_eq!(world.command(&serve).output().unwrap().status.code(), Some(2));
    std::fs::write(&file, "0123456789abcdef-KEPT\n").unwrap();
    let server = world.serve(&["--token-file", "token"]);
    assert_eq!(server.token, "0123456789abcdef-KEPT");
    assert_eq!(server.get("/api/runs").status, 200);
}

#[test]
fn nothing_but_what_is_on_record_is_read() {
    let world = World::new(QUICK);
    let run = world.run_to_its_end();
    let server = world.serve(&[]);
    std::fs::write(world.path().join(".trainyard/secret"), "secret").unwrap();
    for path in [
        "/api/runs/..%2f..%2f..%2fetc".to_owned(),
        "/api/runs/..".to_owned(),
        format!("/api/runs/{run}%2f..%2f{run}"),
        format!("/api/runs/{run}/tasks/9/log"),
        format!("/api/runs/{run}/tasks/0/log?attempt=9"),
        format!("/api/runs/{run}/tasks/1/log?attempt=0"),
        "/web/..%2fmod.rs".to_owned(),
        "/web/%2e%2e%2f%2e%2e%2fsecret".to_owned(),
        "/../.trainyard/secret".to_owned(),
        "/.trainyard/secret".to_owned(),
        format!("/api/diff/{run}/..%2fsecret"),
    ] {
        let answer = server.get(&path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(!answer.text().contains("secret\""), "{path}");
    }
    let odd = server.get(&format!("/api/runs/{run}/tasks/..%2f..%2fsecret/log"));
    assert!((400..500).contains(&odd.status), "{}", odd.status);
}

#[test]
fn what_is_told_is_what_the_commands_print() {
    let world = World::new(QUICK);
    let (a, b) = (world.run_to_its_end(), world.run_to_its_end());
    let server = world.serve(&[]);
    let printed =
        |args: &[&str]| -> Value { serde_json::from_slice(&world.command(args).output().unwrap().stdout).unwrap() };
    assert_eq!(server.get(&format!("/api/runs/{b}")).json(), printed(&["show", &b, "--json"]));
    assert_eq!(server.get(&format!("/api/runs/{b}?series=1")).json(), printed(&["show", &b, "--json"]));
    assert_eq!(server.get(&format!("/api/runs/{b}/tasks/1")).json(), printed(&["show", &b, "--json"])["tasks"][1]);
    assert_eq!(
        server.get(&format!("/api/runs/{b}/tasks/1/explain")).json(),
        printed(&["explain", &b, "next", "--json"])
    );
    assert_eq!(server.get(&format!("/api/diff/{a}/{b}")).json(), printed(&["diff", &a, &b, "--json"]));
    let (listed, runs) = (server.get("/api/runs").json(), printed(&["runs", "--json"]));
    for (told, printed) in listed.as_array().unwrap().iter().zip(runs.as_array().unwrap()) {
        assert_eq!(told, printed);
        assert_eq!(told["counts"]["succeeded"].as_u64().unwrap() + told["counts"]["failed"].as_u64().unwrap(), 2);
    }
    let devices = server.get("/api/devices").json();
    assert_eq!(devices["host"]["name"], printed(&["devices", "--json"])["host"]["name"]);
    let plan = server.get(&format!("/api/runs/{b}/plan")).json();
    assert_eq!((&plan["tasks"][1]["name"], &plan["tasks"][1]["after"]), (&"next".into(), &serde_json::json!([0])));
    let log = server.get(&format!("/api/runs/{b}/tasks/0/log")).json();
    assert_eq!((&log["lines"], &log["next"]), (&serde_json::json!(["one", "two"]), &8.into()));
}

#[test]
fn a_run_is_meant_by_its_name_the_beginning_of_its_id_or_latest() {
    let world = World::new(QUICK);
    world.command(&["run", "p.toml", "--quiet", "--name", "nightly"]).output().unwrap();
    let (first, second) = (world.newest(), world.run_to_its_end());
    let server = world.serve(&[]);
    let own = (0..=second.len()).find(|end| !first.starts_with(&second[..*end])).unwrap();
    for (wanted, run) in [("nightly", &first), ("latest", &second), (&second[..own], &second)] {
        assert_eq!(server.get(&format!("/api/runs/{wanted}")).json()["run"], *run, "{wanted}");
        assert_eq!(server.get(&format!("/api/runs/{wanted}/plan")).json()["run"], *run, "{wanted}");
        let path = format!("/api/runs/{wanted}/cancel");
        refused(&server.ask("POST", &path, &[&server.bearer()]), 409);
        refused(&server.ask("POST", &path, &[&server.bearer(), "Sec-Fetch-Site: cross-site"]), 403);
    }
    assert_eq!(server.get("/api/diff/nightly/latest").json()["a"]["run"], first);
    let several = server.get("/api/runs/2");
    refused(&several, 404);
    assert!(several.text().contains(&first) && several.text().contains(&second), "{}", several.text());
}

#[test]
fn what_is_asked_wrongly_is_answered_in_words() {
    let world = World::new(QUICK);
    let run = world.run_to_its_end();
    let server = world.serve(&[]);
    for path in ["tasks/x", "tasks/-1", "tasks/x/log", "tasks/99"] {
        refused(&server.get(&format!("/api/runs/{run}/{path}")), 404);
    }
    for path in ["tasks/0/log?from=abc", "tasks/0/log?attempt=-1", "events?after=x"] {
        refused(&server.get(&format!("/api/runs/{run}/{path}")), 400);
    }
    refused(&server.ask("POST", "/api/runs", &[&server.bearer()]), 405);
    let mut events = server.listen("/api/events");
    assert_eq!(events.until("runs", |_| true)[0]["run"], run);
}

#[test]
fn a_folder_that_is_not_there_is_no_empty_list() {
    let world = World::new(QUICK);
    for (args, help) in [(["--state", "nope"], "mkdir"), (["--token-file", "nope"], "openssl rand")] {
        let output = world.command(&[&["serve", "--port", "0"], &args[..]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(help), "{args:?}");
    }
}

#[test]
fn what_happens_is_told_at_once_and_whoever_comes_back_misses_nothing() {
    let world = World::new(TWO);
    let run = world.start();
    let server = world.serve(&[]);
    let path = format!("/api/runs/{run}/events");
    let mut events = server.listen(&path);
    let first = events.until("change", |change| change["tasks"][0]["task"]["state"] == "running");
    assert_eq!(
        first["counts"],
        serde_json::json!({"waiting": 1, "running": 1, "succeeded": 0, "cached": 0, "failed": 0, "skipped": 0})
    );
    let heard = events.until("heard", |heard| heard["tasks"][0]["log_bytes"].as_u64() > Some(0));
    assert_eq!(heard["tasks"][0]["index"], 0);
    let log = server.get(&format!("/api/runs/{run}/tasks/0/log")).json();
    assert_eq!(log["lines"], serde_json::json!(["hello from train"]));

    let known = events.last_id.clone();
    drop(events);
    world.go_on();
    let mut others = server.listen(&path);
    others.until("change", |change| change["run"]["state"] == "succeeded");
    let mut again = server.listen_from(&path, &known);
    let missed = again.until("change", |_| true);
    let names: Vec<&Value> =
        missed["tasks"].as_array().unwrap().iter().map(|changed| &changed["task"]["name"]).collect();
    assert_eq!(names, ["train", "evaluate"]);
    let more = server.get(&format!("/api/runs/{run}/tasks/0/log?attempt=1&from={}", log["next"])).json();
    assert_eq!(more["lines"], serde_json::json!(["bye"]));
    let all = server.listen_from(&path, &others.last_id).until("change", |_| true);
    assert_eq!(all["tasks"], serde_json::json!([]), "whoever knows everything is told nothing again");
}

#[test]
fn a_dashboard_that_is_there_first_shows_the_first_run() {
    let world = World::new(QUICK);
    let server = world.serve(&[]);
    assert_eq!(server.get("/api/runs").json(), serde_json::json!([]));
    assert!(server.get("/metrics").text().contains("trainyard_build_info"));
    let mut events = server.listen("/api/events");
    events.until("runs", |runs| runs.as_array().is_some_and(Vec::is_empty));
    let run = world.run_to_its_end();
    let listed = events.until("runs", |runs| runs[0]["state"] == "failed");
    assert_eq!(listed[0]["run"], run.as_str());
    assert!(server.get("/metrics").text().contains("trainyard_runs{state=\"failed\"} 1"));
}

/// A task that fails, and does not when it is tried again.
pub(crate) const FAILS_ONCE: &str = include_str!("../fixtures/fails-once.toml");

#[test]
fn a_failed_run_is_gone_on_with_only_with_the_token_and_from_the_same_origin() {
    let world = World::new(FAILS_ONCE);
    let run = world.run_to_its_end();
    let server = world.serve(&[]);
    let path = format!("/api/runs/{run}/retry");
    let cookie = server.cookie();
    refused(&server.ask("POST", &path, &[]), 401);
    refused(&server.ask("POST", &path, &[&cookie]), 403);
    refused(&server.ask("POST", &path, &[&cookie, "Origin: http://evil.example"]), 403);
    assert_eq!(server.ask("GET", &path, &[&cookie]).status, 405, "no link starts anything");
    refused(&server.ask("POST", "/api/runs/none/retry", &[&server.bearer()]), 404);
    let open = world.serve(&["--no-token"]);
    refused(&open.ask("POST", &path, &[&format!("Origin: http://127.0.0.1:{}", open.port)]), 403);

    let mut events = server.listen(&format!("/api/runs/{run}/events"));
    let before = events.until("change", |_| true);
    assert_eq!((&before["run"]["state"], &before["counts"]["failed"]), (&"failed".into(), &1.into()));
    let origin = format!("Origin: http://127.0.0.1:{}", server.port);
    let asked = server.ask("POST", &path, &[&cookie, &origin, "Sec-Fetch-Site: same-origin"]);
    assert_eq!(asked.status, 202, "{}", asked.text());
    let last = events.until("change", |change| change["run"]["state"] == "succeeded");
    assert_eq!(last["counts"]["succeeded"], 2);
    let tasks = server.get(&format!("/api/runs/{run}")).json();
    assert_eq!(tasks["tasks"][0]["attempts"].as_array().unwrap().len(), 2);
    refused(&server.ask("POST", &path, &[&server.bearer()]), 409);
}

#[test]
fn why_a_run_is_not_gone_on_with_is_told() {
    let world = World::new(TWO);
    let run = world.start();
    let server = world.serve(&[]);
    let path = format!("/api/runs/{run}/retry");
    let under_way = server.ask("POST", &path, &[&server.bearer()]);
    refused(&under_way, 409);
    assert!(under_way.text().contains("under way"), "{}", under_way.text());
    let mut events = server.listen(&format!("/api/runs/{run}/events"));
    assert_eq!(server.ask("POST", &format!("/api/runs/{run}/cancel?now=1"), &[&server.bearer()]).status, 202);
    events.until("change", |change| change["run"]["state"] == "interrupted");
    std::fs::write(world.path().join("p.toml"), QUICK).unwrap();
    let changed = server.ask("POST", &path, &[&server.bearer()]);
    refused(&changed, 409);
    assert!(changed.text().contains("has changed since run"), "{}", changed.text());
}

#[test]
fn what_devices_held_is_known_of_a_run_at_which_nobody_looked() {
    let scene = Scene::new(vec![Card { nobodys_mib: 5 << 10, ..Card::default() }; 2]).unwrap();
    let pipeline = "[stage.train]\nrun = 'true'\nresources = { gpu_memory = '60GiB' }\n";
    let world = World::on(pipeline, scene.environment());
    let run = world.run_to_its_end();
    let server = world.serve(&[]);
    let mut events = server.listen(&format!("/api/runs/{run}/events"));
    let memory = events.until("memory", |_| true);
    let used = memory["used"].as_array().unwrap();
    assert_eq!(used.len(), 2, "{memory}");
    for series in used {
        assert!(series["name"].as_str().unwrap().contains("/gpu"), "{series}");
        assert!(series["value"].as_array().unwrap().iter().all(|bytes| bytes.as_f64() >= Some(5.0 * 1_073_741_824.0)));
        assert_eq!(series["ms"].as_array().unwrap().len(), series["value"].as_array().unwrap().len());
    }
}

#[test]
fn a_run_whose_record_is_damaged_is_listed_beside_the_others() {
    let world = World::new(QUICK);
    let damaged = world.run_to_its_end();
    let db = rusqlite::Connection::open(world.path().join(".trainyard/state.db")).unwrap();
    db.execute("UPDATE event SET body = replace(body, 'outcome', 'outcame')", []).unwrap();
    drop(db);
    world.run_to_its_end();
    let server = world.serve(&[]);
    let printed = world.command(&["runs", "--json"]).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    for list in [server.get("/api/runs").json(), server.get("/api/runs").json(), printed] {
        let runs = list.as_array().unwrap();
        assert_eq!(runs.len(), 2, "{list}");
        for run in runs {
            assert_eq!(run["counts"].is_null(), run["run"] == *damaged, "{list}");
        }
    }
}
