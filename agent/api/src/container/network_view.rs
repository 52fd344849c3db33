//! Ports and networks of a container, as listings and inspect show them.

use std::collections::BTreeMap;

use berth_engine::Container;
use serde_json::{Map, Value, json};

use crate::shape::object;
use crate::version::ApiVersion;

/// The network mode as clients see it: an unnamed one is the default bridge.
pub(super) fn mode(container: &Container) -> &str {
    match container.spec.host.network_mode.as_str() {
        "" | "default" => "bridge",
        mode => mode,
    }
}

/// Exposed ports and their bindings, in the order of the ports.
fn bindings(container: &Container) -> BTreeMap<&str, Vec<(&str, &str)>> {
    let mut ports: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for port in &container.config.exposed_ports {
        ports.entry(port).or_default();
    }
    for binding in &container.spec.host.port_bindings {
        ports
            .entry(&binding.container_port)
            .or_default()
            .push((&binding.host_ip, &binding.host_port));
    }
    ports
}

/// Only a running container that is on a network has ports.
fn has_ports(container: &Container) -> bool {
    container.endpoint.is_some() && container.state.status.is_live()
}

/// `Ports` of a listing: objects from 1.5 on, one text before.
pub(super) fn listed_ports(container: &Container, version: ApiVersion) -> Value {
    let mut list = Vec::new();
    if has_ports(container) {
        for (port, published) in bindings(container) {
            let (number, proto) = port.split_once('/').unwrap_or((port, "tcp"));
            let Ok(private) = number.parse::<u16>() else {
                continue;
            };
            if published.is_empty() {
                list.push((private, proto, None));
            }
            for (ip, host_port) in published {
                let ip = if ip.is_empty() { "0.0.0.0" } else { ip };
                list.push((
                    private,
                    proto,
                    host_port.parse::<u16>().ok().map(|public| (ip, public)),
                ));
            }
        }
    }
    if !version.at_least(5) {
        let texts = list.iter().map(|(private, proto, public)| match public {
            Some((ip, public)) => format!("{ip}:{public}->{private}/{proto}"),
            None => format!("{private}/{proto}"),
        });
        return Value::String(texts.collect::<Vec<_>>().join(", "));
    }
    list.into_iter()
        .map(|(private, proto, public)| match public {
            Some((ip, public)) => {
                json!({"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": proto})
            }
            None => json!({"PrivatePort": private, "Type": proto}),
        })
        .collect()
}

/// `Networks`: the network that was asked for, with addresses while it is joined. A container in
/// another's network has none of its own.
pub(super) fn networks(container: &Container, version: ApiVersion) -> Value {
    let mode = mode(container);
    let mut map = Map::new();
    if !mode.starts_with("container:") && !container.spec.network_disabled {
        map.insert(mode.to_owned(), endpoint(container, version));
    }
    Value::Object(map)
}

fn endpoint(container: &Container, version: ApiVersion) -> Value {
    let (ip, prefix, gateway, mac) = addresses(container);
    let mac = if mac.is_empty() {
        container.spec.mac_address.clone().unwrap_or_default()
    } else {
        mac
    };
    let mut map = object(json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "MacAddress": mac,
        "DriverOpts": null,
        "GwPriority": 0,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": gateway,
        "IPAddress": ip,
        "IPPrefixLen": prefix,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    }));
    let spans = [
        ("IPAMConfig", 22, 0),
        ("Links", 22, 0),
        ("Aliases", 22, 0),
        ("NetworkID", 22, 0),
        ("DriverOpts", 32, 0),
        ("GwPriority", 48, 0),
        ("DNSNames", 44, 0),
    ];
    crate::shape::keep(&mut map, &spans, version);
    Value::Object(map)
}

/// `NetworkSettings` of inspect.
pub(super) fn settings(container: &Container, version: ApiVersion) -> Value {
    let (ip, prefix, gateway, mac) = addresses(container);
    let ports: Map<String, Value> = if has_ports(container) {
        bindings(container)
            .into_iter()
            .map(|(port, published)| {
                let list: Vec<Value> = published
                    .iter()
                    .map(|(ip, port)| json!({"HostIp": ip, "HostPort": port}))
                    .collect();
                (
                    port.to_owned(),
                    if list.is_empty() {
                        Value::Null
                    } else {
                        Value::Array(list)
                    },
                )
            })
            .collect()
    } else {
        Map::new()
    };
    if !version.at_least(13) {
        let bridge = container
            .endpoint
            .as_ref()
            .map_or("", |e| e.bridge.as_str());
        return json!({
            "IPAddress": ip, "IPPrefixLen": prefix, "Gateway": gateway, "Bridge": bridge, "PortMapping": null,
            "Ports": if ports.is_empty() { Value::Null } else { Value::Object(ports) },
        });
    }
    let mut map = object(json!({
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": ports,
        "PortMapping": null,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": "",
        "Gateway": gateway,
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": ip,
        "IPPrefixLen": prefix,
        "IPv6Gateway": "",
        "MacAddress": mac,
        "Networks": networks(container, version),
    }));
    let spans = [
        ("SandboxID", 20, 0),
        ("SandboxKey", 19, 0),
        ("PortMapping", 0, 21),
        ("HairpinMode", 19, 0),
        ("LinkLocalIPv6Address", 17, 0),
        ("LinkLocalIPv6PrefixLen", 17, 0),
        ("SecondaryIPAddresses", 19, 0),
        ("SecondaryIPv6Addresses", 19, 0),
        ("EndpointID", 19, 0),
        ("GlobalIPv6Address", 17, 0),
        ("GlobalIPv6PrefixLen", 17, 0),
        ("IPv6Gateway", 17, 0),
        ("MacAddress", 15, 0),
        ("Networks", 21, 0),
    ];
    crate::shape::keep(&mut map, &spans, version);
    Value::Object(map)
}

/// Address, prefix length, gateway and hardware address; empty where there is no endpoint.
fn addresses(container: &Container) -> (String, u8, String, String) {
    container
        .endpoint
        .as_ref()
        .map_or_else(Default::default, |e| {
            (
                e.ip.to_string(),
                e.prefix_len,
                e.gateway.to_string(),
                e.mac.to_string(),
            )
        })
}
