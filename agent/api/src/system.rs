//! `_ping`, `/version` and `/info`.

mod info;

pub use info::info;

use berth_engine::Info;
use serde_json::{Value, json};

use crate::shape::{Span, keep, object};
use crate::version::ApiVersion;

/// Headers of every answer.
pub fn common_headers(agent_version: &str) -> Vec<(&'static str, String)> {
    vec![
        ("Api-Version", ApiVersion::MAX.to_string()),
        ("Docker-Experimental", "false".to_owned()),
        ("Ostype", "linux".to_owned()),
        ("Server", format!("berth/{agent_version} (linux)")),
    ]
}

/// Headers of `_ping` besides those of every answer. The builder named is the classic one: a client
/// that took BuildKit for granted would open sessions that are not served.
pub fn ping_headers() -> Vec<(&'static str, String)> {
    vec![
        ("Builder-Version", "1".to_owned()),
        (
            "Cache-Control",
            "no-cache, no-store, must-revalidate".to_owned(),
        ),
        ("Pragma", "no-cache".to_owned()),
        ("Swarm", "inactive".to_owned()),
    ]
}

const VERSION_SPANS: &[Span] = &[
    ("Platform", 35, 0),
    ("Components", 35, 0),
    ("MinAPIVersion", 25, 0),
    ("ApiVersion", 5, 0),
    ("Experimental", 25, 50),
];

/// `GET /version`. `commit` may be empty.
pub fn version(info: &Info, agent_version: &str, commit: &str, version: ApiVersion) -> Value {
    let go_arch = go_arch(&info.architecture);
    // Clients print it; nothing parses it.
    let language = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));
    let mut map = object(json!({
        "Platform": { "Name": "berth" },
        "Components": [{
            "Name": "Engine",
            "Version": agent_version,
            "Details": {
                "ApiVersion": ApiVersion::MAX.to_string(),
                "Arch": go_arch,
                "Experimental": "false",
                "GitCommit": commit,
                "GoVersion": language,
                "KernelVersion": info.kernel_version,
                "MinAPIVersion": ApiVersion::MIN.to_string(),
                "Os": "linux",
            },
        }],
        "Version": agent_version,
        "ApiVersion": ApiVersion::MAX.to_string(),
        "MinAPIVersion": ApiVersion::MIN.to_string(),
        "GitCommit": commit,
        "GoVersion": language,
        "Os": "linux",
        "Arch": go_arch,
        "KernelVersion": info.kernel_version,
        "Experimental": false,
    }));
    keep(&mut map, VERSION_SPANS, version);
    Value::Object(map)
}

/// Go's word for an architecture that the kernel or Go named.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        "armv6l" | "armv7l" => "arm",
        other => other,
    }
}

/// The kernel's word for an architecture.
fn kernel_arch(arch: &str) -> &str {
    match arch {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i686",
        other => other,
    }
}

#[cfg(test)]
mod tests;
