//! The body of `POST /containers/{id}/start`: until API 1.23 it could carry a `HostConfig`.

use berth_engine::{Error, Result};

pub use super::host::HostRequest;

use super::host;
use crate::fields;
use crate::version::ApiVersion;

/// The settings that a start brings along and that replace the container's. None where there are
/// none, or none that count: the body counted only as `application/json`, and an empty object as
/// nothing. From 1.24 on a body is refused.
pub fn body(
    content_type: Option<&str>,
    body: &[u8],
    version: ApiVersion,
) -> Result<Option<HostRequest>> {
    if version.at_least(24) {
        // Clients send `{}`, `null` or a blank line; a real object has at least seven characters.
        if body.len() > 7 {
            return Err(Error::invalid(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
            ));
        }
        return Ok(None);
    }
    let json = content_type.is_some_and(|t| {
        t.split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .eq_ignore_ascii_case("application/json")
    });
    let blank = body.iter().all(u8::is_ascii_whitespace);
    if !json || blank || body.trim_ascii() == b"null" {
        return Ok(None);
    }
    let fields = fields::body(body, version)?;
    if fields.is_silent() {
        return Ok(None);
    }
    host::read(fields, version).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: ApiVersion = ApiVersion::new(1, 12);
    const JSON: Option<&str> = Some("application/json; charset=utf-8");

    #[test]
    fn old_clients_bring_settings() {
        let text = br#"{"Binds":["/a:/b:ro","/data"],"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"NetworkMode":"host","LxcConf":[{"Key":"k","Value":"v"}]}"#;
        let request = body(JSON, text, OLD).unwrap().unwrap();
        assert_eq!(request.host.binds[0].source, "/a");
        assert_eq!(request.volumes, ["/data"]);
        assert_eq!(request.host.port_bindings[0].host_port, "8080");
        assert_eq!(request.host.network_mode, "host");
        assert_eq!(request.unsupported, ["LxcConf"]);
    }

    #[test]
    fn nothing_is_nothing() {
        for (kind, text) in [
            (JSON, &b""[..]),
            (JSON, b"{}"),
            (JSON, b"null\n"),
            (None, b"{\"Privileged\":true}"),
            (Some("text/plain"), b"xxxxxxxxxx"),
            (JSON, br#"{"Binds":null,"Privileged":false}"#),
        ] {
            assert_eq!(body(kind, text, OLD).unwrap(), None);
        }
        assert!(body(JSON, b"{", OLD).is_err());
    }

    #[test]
    fn newer_clients_are_refused() {
        assert_eq!(body(None, b"{}", ApiVersion::MAX).unwrap(), None);
        assert!(body(JSON, br#"{"Binds":[]}"#, ApiVersion::MAX).is_err());
    }
}
