//! Who may ask for what. Every request passes here first.
//!
//! - The `Host` must be this machine by an address or a name that is known: a page elsewhere whose name leads here
//!   (DNS rebinding) sends its own name.
//! - Without the token nothing is told. It comes as a bearer token or in a cookie, which a browser gets for the address
//!   that the command printed and gives to no script and no other site.
//! - What changes something also needs the same origin where a browser asks, whatever it has for a token, and is never
//!   done without one.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer;

/// By it a browser says whether a page of the same origin asks.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is asked of a request before anything is done for it.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// `None` where everybody on this machine may look; nobody may change anything then.
    pub(super) token: Option<String>,
    /// Names by which this machine may be asked, besides `localhost` and addresses.
    pub(super) hosts: Vec<String>,
    pub(super) port: u16,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Host,
    Token,
    Origin,
    ReadOnly,
}

impl Guard {
    /// Returns the cookie's name. Cookies are shared by all ports of a host.
    fn cookie(&self) -> String {
        format!("trainyard-{}", self.port)
    }

    /// Whether anybody may change anything.
    pub(super) const fn writes(&self) -> bool {
        self.token.is_some()
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, &header::HOST).ok_or(Refusal::Host)?;
        if !self.knows(host) {
            return Err(Refusal::Host);
        }
        let by = self.who(headers).ok_or(Refusal::Token)?;
        if method == Method::GET || method == Method::HEAD {
            return Ok(());
        }
        match by {
            By::Nobody => Err(Refusal::ReadOnly),
            // No browser adds this on its own to what another site asks for, and what is no browser names no site.
            By::Bearer if names_no_site(headers) => Ok(()),
            By::Bearer | By::Cookie if same_origin(headers, host) => Ok(()),
            By::Bearer | By::Cookie => Err(Refusal::Origin),
        }
    }

    fn knows(&self, host: &str) -> bool {
        let name = host_name(host);
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        literal || name.eq_ignore_ascii_case("localhost") || self.hosts.iter().any(|own| name.eq_ignore_ascii_case(own))
    }

    fn who(&self, headers: &HeaderMap) -> Option<By> {
        let Some(token) = &self.token else { return Some(By::Nobody) };
        let bearer = text(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        if let Some(bearer) = bearer {
            return equal(bearer.trim(), token).then_some(By::Bearer);
        }
        let name = self.cookie();
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut ours = cookies.flat_map(|all| all.split(';')).filter_map(|one| one.trim().split_once('='));
        ours.any(|(key, value)| key == name && equal(value, token)).then_some(By::Cookie)
    }

    /// Returns what to answer to an address with a token, as the command prints it.
    fn enter(&self, request: &Request) -> Option<Response> {
        let own = self.token.as_ref().filter(|_| request.method() == Method::GET)?;
        let given = request.uri().query()?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
        if !equal(given, own) {
            return None;
        }
        let cookie = format!("{}={own}; Path=/; HttpOnly; SameSite=Strict", self.cookie());
        // Not a redirect: after one that began on another site, a browser keeps the cookie to itself.
        let mut response = answer::entered().into_response();
        response.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_str(&cookie).ok()?);
        Some(response)
    }
}

/// As whom somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Bearer,
    Cookie,
    Nobody,
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Returns a host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Whether nothing says from which site a request comes.
fn names_no_site(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::ORIGIN) && !headers.contains_key(SITE)
}

fn same_origin(headers: &HeaderMap, host: &str) -> bool {
    let origin = text(headers, &header::ORIGIN).and_then(|origin| origin.split_once("://"));
    let site = text(headers, &SITE);
    origin.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        && site.is_none_or(|site| site == "same-origin")
}

/// Whether two texts are equal, in a time that says nothing of where they differ.
fn equal(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    a.len() == b.len() && differ == 0
}

/// Lets a request through or refuses it, and adds what every answer has.
pub(super) async fn watch(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let known = text(request.headers(), &header::HOST).is_some_and(|host| guard.knows(host));
    let mut response = match guard.check(request.method(), request.headers()) {
        _ if known && let Some(entered) = guard.enter(&request) => entered,
        Ok(()) => next.run(request).await,
        // The page that asks for the token looks like the others.
        Err(Refusal::Token) if OPEN.contains(&request.uri().path()) => next.run(request).await,
        Err(refusal) => refuse(refusal, &request),
    };
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// What is told without the token: it says nothing of this machine.
const OPEN: [&str; 2] = ["/web/app.css", "/web/icon.svg"];

/// What every answer says to a browser: nothing from elsewhere, no script but our own files, no frame, no guess.
const ALWAYS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

fn refuse(refusal: Refusal, request: &Request) -> Response {
    let wants_page = text(request.headers(), &header::ACCEPT).is_some_and(|accept| accept.contains("text/html"));
    match refusal {
        Refusal::Host => answer::error(
            StatusCode::MISDIRECTED_REQUEST,
            "this machine is not asked by that name; `trainyard serve --host NAME` allows it",
        ),
        Refusal::Token if wants_page => (StatusCode::UNAUTHORIZED, answer::ask_for_token()).into_response(),
        Refusal::Token => {
            answer::error(StatusCode::UNAUTHORIZED, "the token is missing or wrong; `trainyard serve` printed it")
        }
        Refusal::Origin => answer::error(StatusCode::FORBIDDEN, "another site asked for this"),
        Refusal::ReadOnly => {
            answer::error(StatusCode::FORBIDDEN, "without a token nothing can be changed; leave --no-token out")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard { token: Some("0123456789abcdef".into()), hosts: vec!["box".into()], port: 7070 }
    }

    fn checked(method: &Method, headers: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        guard().check(method, &headers.collect())
    }

    const COOKIE: (&str, &str) = ("cookie", "other=1; trainyard-7070=0123456789abcdef");
    const BEARER: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");

    #[test]
    fn a_name_that_leads_here_by_accident_is_refused() {
        for host in ["localhost:7070", "127.0.0.1:9", "[::1]:7070", "10.0.0.7", "BOX:7070", "LocalHost"] {
            assert!(guard().knows(host), "{host}");
        }
        for host in ["evil.example:7070", "localhost.evil.example", "127.0.0.1.evil.example", "", "box.evil:7070"] {
            assert!(!guard().knows(host), "{host}");
        }
        assert_eq!(checked(&Method::GET, &[BEARER]), Err(Refusal::Host));
    }

    #[test]
    fn the_token_is_asked_for() {
        let host = ("host", "localhost:7070");
        assert_eq!(checked(&Method::GET, &[host]), Err(Refusal::Token));
        assert_eq!(checked(&Method::GET, &[host, COOKIE]), Ok(()));
        assert_eq!(checked(&Method::GET, &[host, BEARER]), Ok(()));
        assert_eq!(checked(&Method::GET, &[host, ("authorization", "Bearer 0123")]), Err(Refusal::Token));
        assert_eq!(checked(&Method::GET, &[host, ("cookie", "trainyard-7070=")]), Err(Refusal::Token));
        assert_eq!(checked(&Method::GET, &[host, ("cookie", "trainyard-1=0123456789abcdef")]), Err(Refusal::Token));
    }

    #[test]
    fn a_change_needs_the_same_origin_of_a_browser() {
        let host = ("host", "localhost:7070");
        let own = ("origin", "http://localhost:7070");
        assert_eq!(checked(&Method::POST, &[host, COOKIE]), Err(Refusal::Origin));
        assert_eq!(checked(&Method::POST, &[host, COOKIE, ("origin", "http://evil.example")]), Err(Refusal::Origin));
        assert_eq!(checked(&Method::POST, &[host, COOKIE, ("origin", "http://localhost:8080")]), Err(Refusal::Origin));
        assert_eq!(checked(&Method::POST, &[host, COOKIE, ("origin", "null")]), Err(Refusal::Origin));
        assert_eq!(checked(&Method::POST, &[host, COOKIE, own, ("sec-fetch-site", "same-site")]), Err(Refusal::Origin));
        assert_eq!(checked(&Method::POST, &[host, COOKIE, own]), Ok(()));
        assert_eq!(checked(&Method::POST, &[host, BEARER]), Ok(()));
        assert_eq!(checked(&Method::POST, &[host, own]), Err(Refusal::Token));
    }

    #[test]
    fn another_site_changes_nothing_with_the_token_in_hand_either() {
        let host = ("host", "localhost:7070");
        let own = ("origin", "http://localhost:7070");
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(checked(&Method::POST, &[host, BEARER, foreign]), Err(Refusal::Origin), "{foreign:?}");
            assert_eq!(checked(&Method::GET, &[host, BEARER, foreign]), Ok(()), "{foreign:?}");
        }
        assert_eq!(
            checked(&Method::POST, &[host, BEARER, own, ("sec-fetch-site", "cross-site")]),
            Err(Refusal::Origin)
        );
        assert_eq!(checked(&Method::POST, &[host, BEARER, own, ("sec-fetch-site", "same-origin")]), Ok(()));
    }

    #[test]
    fn without_a_token_nothing_is_changed() {
        let open = Guard { token: None, ..guard() };
        let headers: HeaderMap = [(header::HOST, HeaderValue::from_static("localhost"))].into_iter().collect();
        assert_eq!(open.check(&Method::GET, &headers), Ok(()));
        assert_eq!(open.check(&Method::POST, &headers), Err(Refusal::ReadOnly));
    }

    #[test]
    fn equality_is_of_the_whole() {
        assert!(equal("abc", "abc") && !equal("abc", "abd") && !equal("abc", "ab") && !equal("", "a") && equal("", ""));
    }
}
