//! The rules as data, and as the text that `nft -f -` takes.
//!
//! Pure. What the rules do, per bridge:
//! - what leaves the bridge with a container's address gets an address of the host (masquerade),
//!   whatever the way out is, so uplinks may change;
//! - what leaves the bridge with any other address is dropped: a container cannot speak as another
//!   host, and one that is not registered (yet) reaches nobody outside;
//! - what comes to the bridge from another interface is dropped, other bridges' included, unless
//!   it answers something that a container began. Published ports will add their exception here.
//!
//! The host itself reaches its containers (its packets are not forwarded), and containers of one
//! bridge reach each other (theirs are not routed; with br_netfilter they come through here and are
//! let pass).
//!
//! Where berth is the one that switches IPv4 forwarding on, the host becomes a router between all
//! of its interfaces. The guard takes that back where it matters: between the links that lead to
//! other machines nothing is forwarded, just as before. (Docker sets the policy of the FORWARD
//! chain to drop for the same reason; that also stops every other program that forwards, such as
//! virtual machines' bridges and Docker itself, so it is not done here.)

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use berth_model::digest::Digest;

/// Our table, in the family `inet`.
pub(crate) const TABLE: &str = "berth";

/// Hex digits of the rules' digest in the name of the marker.
const MARKER_DIGITS: usize = 16;

/// What one bridge network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    /// The interface name: letters, digits, `-` and `_` only (`BridgeConfig::check`).
    pub name: String,
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// All that berth has in netfilter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub bridges: Vec<BridgeRules>,
    /// The interfaces between which nothing is forwarded.
    pub guard: BTreeSet<String>,
}

/// The set with the addresses of a bridge's containers.
pub(crate) fn set_name(bridge: &str) -> String {
    format!("addresses-{bridge}")
}

impl Ruleset {
    /// The name of an empty chain that tells which rules the table holds: another version's or
    /// another configuration's rules have another name. Addresses do not count.
    pub(crate) fn marker(&self) -> String {
        let digest = Digest::of(self.body(false).as_bytes()).hex();
        format!("rules-{}", &digest[..MARKER_DIGITS])
    }

    /// The whole table as one transaction of `nft`, which replaces what there is.
    pub(crate) fn text(&self) -> String {
        // The first line makes the second one valid where there is no such table.
        format!(
            "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n\tchain {} {{\n\t}}\n{}}}\n",
            self.marker(),
            self.body(true),
        )
    }

    fn body(&self, with_addresses: bool) -> String {
        let mut out = String::new();
        for bridge in &self.bridges {
            out.push_str(&set_text(bridge, with_addresses));
        }
        out.push_str(
            "\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n",
        );
        for BridgeRules { name, .. } in &self.bridges {
            let set = set_name(name);
            let _ = write!(
                out,
                "\t\tiifname \"{name}\" oifname \"{name}\" accept\n\
                 \t\tiifname \"{name}\" meta nfproto != ipv4 drop\n\
                 \t\tiifname \"{name}\" ip saddr != @{set} drop\n\
                 \t\toifname \"{name}\" ct state established,related accept\n\
                 \t\toifname \"{name}\" drop\n"
            );
        }
        let guarded: Vec<_> = self
            .guard
            .iter()
            .filter(|name| is_quotable(name))
            .map(|name| format!("\"{name}\""))
            .collect();
        if !guarded.is_empty() {
            let guarded = guarded.join(", ");
            let _ = writeln!(
                out,
                "\t\tmeta nfproto ipv4 iifname {{ {guarded} }} oifname {{ {guarded} }} drop"
            );
        }
        out.push_str("\t}\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
        for BridgeRules { name, .. } in &self.bridges {
            let _ = writeln!(
                out,
                "\t\toifname != \"{name}\" ip saddr @{} masquerade",
                set_name(name)
            );
        }
        out.push_str("\t}\n");
        out
    }
}

/// The kernel lets nearly anything be an interface name; nft's quotes have no escape, and a star at
/// the end means any ending.
fn is_quotable(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':'))
}

fn set_text(bridge: &BridgeRules, with_addresses: bool) -> String {
    let mut out = format!("\tset {} {{\n\t\ttype ipv4_addr\n", set_name(&bridge.name));
    // An empty list of elements is a syntax error.
    if with_addresses && !bridge.addresses.is_empty() {
        let addresses: Vec<_> = bridge.addresses.iter().map(Ipv4Addr::to_string).collect();
        let _ = writeln!(out, "\t\telements = {{ {} }}", addresses.join(", "));
    }
    out.push_str("\t}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(guard: &[&str], addresses: &[[u8; 4]]) -> Ruleset {
        let addresses = addresses
            .iter()
            .map(|bytes| Ipv4Addr::from(*bytes))
            .collect();
        let guard = guard.iter().map(|name| (*name).to_owned()).collect();
        Ruleset {
            bridges: vec![BridgeRules {
                name: "berth0".to_owned(),
                addresses,
            }],
            guard,
        }
    }

    #[test]
    fn the_text_is_as_reviewed() {
        insta::assert_snapshot!(
            rules(&["wlan0", "eth0"], &[[172, 29, 0, 3], [172, 29, 0, 2]]).text()
        );
    }

    #[test]
    fn empty_sets_are_not_written() {
        assert!(!rules(&[], &[]).text().contains("elements"));
        assert!(!rules(&[], &[]).text().contains("nfproto ipv4 "));
        // Names that nft would misread are left out.
        assert_eq!(
            rules(&["a\"b", "eth*", "é"], &[]).text(),
            rules(&[], &[]).text()
        );
    }

    #[test]
    fn the_marker_tells_rules_apart_but_not_addresses() {
        assert_eq!(
            rules(&["eth0"], &[]).marker(),
            rules(&["eth0"], &[[10, 0, 0, 2]]).marker()
        );
        assert_ne!(rules(&["eth0"], &[]).marker(), rules(&[], &[]).marker());
        let mut other = rules(&[], &[]);
        other.bridges[0].name = "other0".to_owned();
        assert_ne!(other.marker(), rules(&[], &[]).marker());
    }
}
