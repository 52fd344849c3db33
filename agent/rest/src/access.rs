//! What a request must look like before anything of it is believed: one host, a plain target, a method
//! of ours; and on TCP the rules that keep web pages out (forged requests and rebound names).

use std::net::{IpAddr, SocketAddr};

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

use crate::error::{Error, Result, quoted};
use crate::limits;
use crate::socket::Peer;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what HTTP forbids or what only an attack would send.
pub(crate) fn check(head: &Parts, peer: &Peer) -> Result<()> {
    if !matches!(
        head.method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::OPTIONS
            | Method::PATCH
    ) {
        let message = format!("method {} is not allowed", quoted(head.method.as_str()));
        return Err(Error::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    // The agent is no proxy.
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        return Err(Error::bad_request("the request's target must be a path"));
    }
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits::TARGET_BYTES {
        let message = format!(
            "the request's target is longer than {} bytes",
            limits::TARGET_BYTES
        );
        return Err(Error::new(StatusCode::URI_TOO_LONG, message));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && head.version == Version::HTTP_11) {
        return Err(Error::bad_request(
            "the request must have exactly one Host header",
        ));
    }
    let Peer::Tcp { local, .. } = peer else {
        return Ok(());
    };
    from_a_page(&head.headers)?;
    match host.map(|host| host.to_str().map_err(|_| ())) {
        None => Ok(()),
        Some(Ok(host)) if names_us(host, *local) => Ok(()),
        Some(_) => Err(Error::new(
            StatusCode::FORBIDDEN,
            "the Host header does not name this listener's address",
        )),
    }
}

/// Browsers say where a request comes from; no client of ours does.
fn from_a_page(headers: &HeaderMap) -> Result<()> {
    let site = headers.get(SEC_FETCH_SITE).map(|value| value.as_bytes());
    if headers.contains_key(header::ORIGIN)
        || site.is_some_and(|s| s != b"none" && s != b"same-origin")
    {
        return Err(Error::new(
            StatusCode::FORBIDDEN,
            "requests from web pages are not served",
        ));
    }
    Ok(())
}

/// Whether a Host header means the address that the client really connected to.
fn names_us(host: &str, local: SocketAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            if port.parse() != Ok(local.port()) {
                return false;
            }
            name
        }
        _ => host,
    };
    let name = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>() == Ok(local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(
        build: impl FnOnce(hyper::http::request::Builder) -> hyper::http::request::Builder,
    ) -> Parts {
        build(
            hyper::Request::builder()
                .uri("/info")
                .header("host", "docker"),
        )
        .body(())
        .expect("request")
        .into_parts()
        .0
    }

    fn tcp() -> Peer {
        Peer::Tcp {
            remote: "127.0.0.1:50000".parse().expect("addr"),
            local: "127.0.0.1:2375".parse().expect("addr"),
        }
    }

    fn status(head: &Parts, peer: &Peer) -> u16 {
        check(head, peer).err().map_or(200, |e| e.status.as_u16())
    }

    #[test]
    fn plain_requests_pass() {
        assert_eq!(status(&head(|r| r), &Peer::Unknown), 200);
        assert_eq!(
            status(
                &head(|r| r.header("origin", "https://example.org")),
                &Peer::Unknown
            ),
            200
        );
    }

    #[test]
    fn exactly_one_host_and_no_proxying() {
        assert_eq!(
            status(&head(|r| r.header("host", "other")), &Peer::Unknown),
            400
        );
        let none = hyper::Request::builder()
            .uri("/info")
            .body(())
            .expect("request")
            .into_parts()
            .0;
        assert_eq!(status(&none, &Peer::Unknown), 400);
        assert_eq!(
            status(&head(|r| r.uri("http://example.org/info")), &Peer::Unknown),
            400
        );
        assert_eq!(status(&head(|r| r.method("TRACE")), &Peer::Unknown), 405);
        assert_eq!(
            status(
                &head(|r| r.method("CONNECT").uri("example.org:80")),
                &Peer::Unknown
            ),
            405
        );
        let long = format!("/{}", "x".repeat(limits::TARGET_BYTES));
        assert_eq!(status(&head(|r| r.uri(long)), &Peer::Unknown), 414);
    }

    #[test]
    fn pages_and_rebound_names_are_kept_out_of_tcp() {
        let host = |name: &'static str| {
            hyper::Request::builder()
                .uri("/info")
                .header("host", name)
                .body(())
                .expect("request")
                .into_parts()
                .0
        };
        for good in ["127.0.0.1:2375", "localhost:2375", "LOCALHOST", "127.0.0.1"] {
            assert_eq!(status(&host(good), &tcp()), 200, "{good}");
        }
        for bad in [
            "evil.example:2375",
            "127.0.0.1:80",
            "127.0.0.2:2375",
            "docker",
            "localhost:",
            "[::1]:2375",
        ] {
            assert_eq!(status(&host(bad), &tcp()), 403, "{bad}");
        }
        let mut page = host("localhost:2375");
        page.headers
            .insert("origin", "null".parse().expect("value"));
        assert_eq!(status(&page, &tcp()), 403);
        let mut fetch = host("localhost:2375");
        fetch
            .headers
            .insert("sec-fetch-site", "cross-site".parse().expect("value"));
        assert_eq!(status(&fetch, &tcp()), 403);
    }

    #[test]
    fn addresses_in_brackets_are_read() {
        let local: SocketAddr = "[::1]:2375".parse().expect("addr");
        assert!(names_us("[::1]:2375", local));
        assert!(names_us("[::1]", local));
        assert!(!names_us("[::2]:2375", local));
    }
}
