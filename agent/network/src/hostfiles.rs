//! The three files that tell a container who it is and whom to ask: `/etc/hosts`,
//! `/etc/hostname`, `/etc/resolv.conf`.
//!
//! Pure: the host's files come in as text. The contents are Docker's, line for line, since programs
//! and people read them.

use std::net::{IpAddr, Ipv4Addr};

use crate::error::{Error, Result};

/// Servers taken when no server of the host's can be reached from a container: Docker's defaults.
pub const PUBLIC_SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// The word in an extra host that stands for the host itself.
const HOST_GATEWAY: &str = "host-gateway";

/// A search list of one dot means none (docker-run, `--dns-search=.`).
const NO_SEARCH: &str = ".";

/// systemd-resolved's stub listeners (systemd-resolved.service(8)).
const RESOLVED_STUBS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)),
];

/// An entry that a user adds to `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    pub name: String,
    pub address: HostAddress,
}

/// Where an extra host points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    Address(IpAddr),
    /// The host, by the address under which the container reaches it.
    Gateway,
}

impl ExtraHost {
    /// Reads `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may stand in brackets, and
    /// `host-gateway` stands for the host.
    ///
    /// # Errors
    /// [`Error::Config`] with the text.
    pub fn parse(text: &str) -> Result<ExtraHost> {
        let wrong = |why| Error::Config {
            what: format!("extra host {text:?}"),
            why,
        };
        let (name, address) = match text.find([':', '=']) {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => return Err(wrong("is not of the form NAME:ADDRESS")),
        };
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(wrong("has no proper name"));
        }
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        let address = match bare {
            HOST_GATEWAY => HostAddress::Gateway,
            _ => HostAddress::Address(bare.parse().map_err(|_| wrong("has no IP address"))?),
        };
        Ok(ExtraHost {
            name: name.to_owned(),
            address,
        })
    }
}

/// What can stand in a line as one word without starting a comment or ending the line.
fn is_word(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && c != '#'
}

/// How a container is called, for its own line in `/etc/hosts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names<'a> {
    pub hostname: &'a str,
    /// Empty = none.
    pub domainname: &'a str,
}

/// `/etc/hosts`: the fixed lines, the extra hosts, the container's own line (if it has an
/// address). `gateway` is what `host-gateway` becomes.
///
/// # Errors
/// [`Error::Config`] for `host-gateway` where there is no gateway (network mode none).
pub fn hosts(
    own: Option<Ipv4Addr>,
    names: Names<'_>,
    extra: &[ExtraHost],
    gateway: Option<Ipv4Addr>,
) -> Result<String> {
    let mut out = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    append_extra(&mut out, extra, gateway)?;
    if let Some(own) = own {
        let Names {
            hostname,
            domainname,
        } = names;
        if domainname.is_empty() {
            out.push_str(&format!("{own}\t{hostname}\n"));
        } else {
            out.push_str(&format!("{own}\t{hostname}.{domainname} {hostname}\n"));
        }
    }
    Ok(out)
}

/// `/etc/hosts` of a container on the host's network: the host's own, and the extra hosts.
///
/// # Errors
/// As [`hosts`].
pub fn hosts_of_host(host: &str, extra: &[ExtraHost], gateway: Option<Ipv4Addr>) -> Result<String> {
    let mut out = host.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    append_extra(&mut out, extra, gateway)?;
    Ok(out)
}

fn append_extra(out: &mut String, extra: &[ExtraHost], gateway: Option<Ipv4Addr>) -> Result<()> {
    for host in extra {
        let address = match host.address {
            HostAddress::Address(address) => address,
            HostAddress::Gateway => gateway.map(IpAddr::V4).ok_or_else(|| Error::Config {
                what: format!("extra host {:?}", host.name),
                why: "asks for the host's address, but the container has no network to reach it by",
            })?,
        };
        out.push_str(&format!("{address}\t{}\n", host.name));
    }
    Ok(())
}

/// `/etc/hostname`.
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// What a user says about name resolution; empty = the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides<'a> {
    pub servers: &'a [String],
    pub search: &'a [String],
    pub options: &'a [String],
}

/// A `/etc/resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    pub text: String,
    /// What an administrator should hear of: public servers had to be taken.
    pub notice: Option<&'static str>,
}

/// `/etc/resolv.conf` for a container on an IPv4 bridge network.
///
/// `host` is the host's file. Where all its servers are systemd-resolved's stub, `upstream`
/// (`/run/systemd/resolve/resolv.conf`) takes its place, which names the real servers. Of the
/// host's servers those on a loopback address and those with an IPv6 address cannot be reached
/// from the container and are left out. If none remains, Docker's public defaults are taken, and
/// the result says so.
///
/// # Errors
/// [`Error::Config`] for a server that is no IP address, or a search domain or option that is no
/// single word.
pub fn resolv_conf(
    host: &str,
    upstream: Option<&str>,
    overrides: Overrides<'_>,
) -> Result<ResolvConf> {
    let mut file = Parsed::read(host);
    if let Some(upstream) = upstream
        && !file.servers.is_empty()
        && file.servers.iter().all(|server| {
            RESOLVED_STUBS
                .iter()
                .any(|stub| stub.to_string() == *server)
        })
    {
        file = Parsed::read(upstream);
    }
    let mut notice = None;
    if overrides.servers.is_empty() {
        file.servers.retain(|server| is_reachable(server));
        if file.servers.is_empty() {
            file.servers = PUBLIC_SERVERS.iter().map(Ipv4Addr::to_string).collect();
            notice = Some(
                "no name server of this host can be reached from containers, so 8.8.8.8 and 8.8.4.4 are used: \
                 set name servers with --dns or in the configuration",
            );
        }
    } else {
        for server in overrides.servers {
            check_server(server)?;
        }
        file.servers = overrides.servers.to_vec();
    }
    if !overrides.search.is_empty() {
        check_words("search domain", overrides.search)?;
        file.search = overrides
            .search
            .iter()
            .filter(|domain| *domain != NO_SEARCH)
            .cloned()
            .collect();
    }
    if !overrides.options.is_empty() {
        check_words("resolver option", overrides.options)?;
        file.options = overrides.options.to_vec();
    }
    Ok(ResolvConf {
        text: file.write(),
        notice,
    })
}

/// A link-local address with a zone (`fe80::1%eth0`) is no [`IpAddr`]; it is of no use inside either.
fn is_reachable(server: &str) -> bool {
    matches!(server.parse(), Ok(IpAddr::V4(address)) if !address.is_loopback() && !address.is_unspecified())
}

fn check_server(server: &str) -> Result<()> {
    let address = server
        .split_once('%')
        .map_or(server, |(address, _)| address);
    if server.chars().all(is_word) && address.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(Error::Config {
        what: format!("name server {server:?}"),
        why: "is not an IP address",
    })
}

fn check_words(what: &str, words: &[String]) -> Result<()> {
    match words
        .iter()
        .find(|word| word.is_empty() || !word.chars().all(is_word))
    {
        Some(word) => Err(Error::Config {
            what: format!("{what} {word:?}"),
            why: "is not a single word",
        }),
        None => Ok(()),
    }
}

/// What resolv.conf(5) knows, and the other lines as they were.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
    other: Vec<String>,
}

impl Parsed {
    fn read(text: &str) -> Parsed {
        let mut parsed = Parsed::default();
        for line in text.lines() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => parsed.servers.extend(words.next()),
                // The last line wins, and `domain` is a search list of one (resolv.conf(5)).
                Some("search") => parsed.search = words.filter(|word| word != NO_SEARCH).collect(),
                Some("domain") => parsed.search = words.take(1).collect(),
                Some("options") => parsed.options.extend(words),
                Some(_) => parsed.other.push(line.to_owned()),
                None => {}
            }
        }
        parsed
    }

    fn write(&self) -> String {
        let mut out = String::from("# Made by berth for this container.\n\n");
        for server in &self.servers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        for (keyword, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                out.push_str(&format!("{keyword} {}\n", words.join(" ")));
            }
        }
        for line in &self.other {
            out.push_str(line);
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests;
