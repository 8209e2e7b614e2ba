//! `on_finish = { run = "…", webhook = "https://…" }`: who is told that a run is over.

use super::common::backoff;
use super::decode::Decoder;
use super::keys::{OnFinishKey, RETRIES};
use super::problem::did_you_mean;
use super::tree::{Entry, Node};
use super::{Located, OnFinish, Problem};
use crate::units::Millis;

/// Reads `on_finish`.
pub(super) fn on_finish(decoder: &mut Decoder<'_>, node: &Node) -> Option<OnFinish> {
    let table = decoder.table(node, "a table like { run = \"notify-send done\" } or { webhook = \"https://…\" }")?;
    let mut told = OnFinish::default();
    // What is wrong with one key does not make the others absent.
    let mut names_nobody = true;
    for (key, Entry { node, .. }) in decoder.fields::<OnFinishKey>(table) {
        match key {
            OnFinishKey::Run => {
                names_nobody = false;
                told.run = decoder.text(node, "a shell line").and_then(|line| not_empty(decoder, line));
            }
            OnFinishKey::Webhook => {
                names_nobody = false;
                told.webhook =
                    decoder.text(node, "an address like \"https://…\"").and_then(|url| address(decoder, url));
            }
            OnFinishKey::Timeout => {
                told.timeout = decoder.quantity(node).unwrap_or(told.timeout);
                if told.timeout == Millis::ZERO {
                    let problem = Problem::new(node.span.clone(), "nobody can be told in no time");
                    decoder.report(problem.help("leave it out for 30 s"));
                }
            }
            OnFinishKey::Retries => {
                let retries = decoder.whole(node, RETRIES).and_then(|retries| u32::try_from(retries).ok());
                told.retries = retries.unwrap_or(told.retries);
            }
            OnFinishKey::Backoff => {
                if let Some((first, most)) = backoff(decoder, node) {
                    (told.backoff, told.backoff_most) = (first, most.unwrap_or(told.backoff_most.max(first)));
                }
            }
        }
    }
    if names_nobody {
        let problem = Problem::new(node.span.clone(), "`on_finish` tells nobody");
        decoder.report(problem.help("add `run`, a shell line, or `webhook`, an address that is sent a POST"));
    }
    Some(told)
}

fn not_empty(decoder: &mut Decoder<'_>, line: Located) -> Option<String> {
    if line.text.trim().is_empty() {
        decoder.report(Problem::new(line.span, "this command is empty"));
        return None;
    }
    Some(line.text)
}

/// Takes an address with a scheme that can be spoken and a host.
fn address(decoder: &mut Decoder<'_>, url: Located) -> Option<String> {
    const SCHEMES: [&str; 2] = ["http", "https"];
    let (scheme, rest) = url.text.split_once("://").unwrap_or((url.text.as_str(), ""));
    if !SCHEMES.contains(&scheme) {
        let near = did_you_mean(scheme, SCHEMES).filter(|_| !rest.is_empty());
        let problem = Problem::new(
            if rest.is_empty() { url.span.clone() } else { decoder.inside(&url.span, 0..scheme.len()) },
            "a webhook's address begins with `https://` or `http://`",
        );
        decoder.report(match near {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem,
        });
        return None;
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let name = host.rsplit('@').next().unwrap_or_default().split(':').next().unwrap_or_default();
    if name.is_empty() {
        let behind = scheme.len() + 3;
        let span = decoder.inside(&url.span, behind..behind + host.len());
        decoder.report(Problem::new(span, "this address names no host"));
        return None;
    }
    if let Some(at) = url.text.find(|c: char| c.is_whitespace() || c.is_control()) {
        let end = at + url.text[at..].chars().next().map_or(1, char::len_utf8);
        let span = decoder.inside(&url.span, at..end);
        decoder.report(Problem::new(span, "an address holds no spaces").help("write `%20` for one"));
        return None;
    }
    Some(url.text)
}

#[cfg(test)]
mod tests {
    use super::super::{Source, parse};
    use super::*;

    fn read(on_finish: &str) -> (Option<OnFinish>, Vec<(String, String)>) {
        let text = format!("on_finish = {on_finish}\n[stage.a]\nrun = \"true\"\n");
        let source = Source { name: "p.toml".into(), text };
        let parsed = parse(&source, &[], &[]);
        let told = |problem: &Problem| {
            let place = match &problem.span {
                super::super::Span::File(place) => source.text[place.clone()].to_owned(),
                super::super::Span::Set(..) | super::super::Span::Whole => String::new(),
            };
            (place, problem.message.clone())
        };
        (parsed.pipeline.on_finish.clone(), parsed.problems.iter().map(told).collect())
    }

    fn problem(on_finish: &str) -> (String, String) {
        let (_, mut problems) = read(on_finish);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    #[test]
    fn a_command_and_a_webhook_may_be_told() {
        let (told, problems) = read(
            "{ run = \"echo done\", webhook = \"https://example.org/x\", timeout = \"5s\", retries = 1, backoff = \"2s..9s\" }",
        );
        assert_eq!(problems, []);
        let wanted = OnFinish {
            run: Some("echo done".into()),
            webhook: Some("https://example.org/x".into()),
            timeout: Millis(5_000),
            retries: 1,
            backoff: Millis(2_000),
            backoff_most: Millis(9_000),
        };
        assert_eq!(told, Some(wanted));
        assert_eq!(read("{ run = \"x\" }").0.map(|told| (told.retries, told.timeout)), Some((3, Millis(30_000))));
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        assert_eq!(problem("{ retries = 1 }").1, "`on_finish` tells nobody");
        assert_eq!(problem("{ run = \" \" }"), ("\" \"".into(), "this command is empty".into()));
        assert_eq!(problem("{ webhook = \"htp://x.org\" }").0, "htp");
        assert_eq!(problem("{ webhook = \"x.org\" }").0, "\"x.org\"");
        assert_eq!(problem("{ webhook = \"https:///x\" }").1, "this address names no host");
        assert_eq!(problem("{ webhook = \"https://x.org/a b\" }").0, " ");
        assert_eq!(problem("{ run = \"x\", timeout = \"0s\" }").1, "nobody can be told in no time");
        assert_eq!(problem("{ rum = \"x\", run = \"x\" }").1, "unknown key `rum`");
        assert_eq!(problem("\"echo\"").0, "\"echo\"");
    }
}
