//! Archives from before Docker 1.10: a directory per layer with `VERSION`, `json` and `layer.tar`,
//! chained by the parent that each `json` names, and `repositories` for the names.
//!
//! Such images have no configuration of the present form, so one is made from the topmost layer's
//! `json` the way Docker's own migration does it (moby, `image/v1/imagev1.go`, MakeConfigFromV1Config):
//! its fields as they stand in sorted order, without those that only made sense there, and with the
//! layers' digests and history put in. The image's id is the digest of that, so it agrees with
//! Docker's for images made by Docker 1.8.3 or later; for older ones Docker rewrites the fields too.

use std::collections::{BTreeMap, HashMap, HashSet};

use berth_model::digest::Digest;
use berth_model::image::manifest::{LegacyLayer, Repositories};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::plan::{PlannedImage, reference};
use super::spool::{Blob, Spool};
use crate::archive::compress::{Compression, decoder};
use crate::archive::rebuild::digest_of;
use crate::error::{Error, Result, shown};
use crate::limits::{IMAGES_MAX, LAYERS_MAX};

/// Fields of a layer's `json` that no configuration has.
const DROPPED: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];
/// Fields that the very first releases wrote in another spelling (that of `docker inspect`).
const SPELLINGS: [(&str, &str); 10] = [
    ("Architecture", "architecture"),
    ("Author", "author"),
    ("Comment", "comment"),
    ("Config", "config"),
    ("Container", "container"),
    ("ContainerConfig", "container_config"),
    ("Created", "created"),
    ("DockerVersion", "docker_version"),
    ("Os", "os"),
    ("Variant", "variant"),
];

/// One layer's directory.
#[derive(Debug)]
struct Record {
    json: Vec<u8>,
    parent: String,
    layer: Blob,
}

pub(crate) fn plan(spool: &Spool, dirs: &[String]) -> Result<Vec<PlannedImage>> {
    let mut records = HashMap::new();
    // Directories may be named by what was asked for instead of by id; `repositories` may use either.
    let mut ids = HashMap::new();
    for dir in dirs {
        let (id, record) = read(spool, dir)?;
        ids.insert(dir.clone(), id.clone());
        ids.insert(id.clone(), id.clone());
        if records.insert(id.clone(), record).is_some() {
            return Err(Error::archive(
                "image archive",
                format!("two layers with id \"{}\"", shown(id.as_bytes())),
            ));
        }
    }
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, name) in tags(spool)? {
        let Some(id) = ids.get(&id) else {
            let why = format!(
                "\"{}\" is layer \"{}\", which is not in the archive",
                shown(name.as_bytes()),
                shown(id.as_bytes())
            );
            return Err(Error::archive("repositories", why));
        };
        wanted.entry(id.clone()).or_default().push(name);
    }
    // An archive made by id names nothing: what nothing is built on is then what was meant.
    let parents: HashSet<&str> = records
        .values()
        .map(|record| record.parent.as_str())
        .collect();
    for id in records.keys().filter(|id| !parents.contains(id.as_str())) {
        wanted.entry(id.clone()).or_default();
    }
    if wanted.is_empty() {
        return Err(Error::archive(
            "image archive",
            "its layers' parents go round in a circle",
        ));
    }
    if wanted.len() > IMAGES_MAX {
        return Err(Error::archive(
            "image archive",
            format!("it has more than {IMAGES_MAX} images"),
        ));
    }
    let mut diff_ids = HashMap::new();
    wanted
        .iter()
        .map(|(id, names)| image(spool, &records, id, names, &mut diff_ids))
        .collect()
}

fn read(spool: &Spool, dir: &str) -> Result<(String, Record)> {
    let what = format!("{}/json", shown(dir.as_bytes()));
    if let Some(version) = spool.find(&format!("{dir}/VERSION"))? {
        let text = spool.document(&version, &what)?;
        if text.trim_ascii() != b"1.0" {
            let why = format!("version \"{}\", 1.0 is known", shown(&text));
            return Err(Error::unsupported(
                format!("{}/VERSION", shown(dir.as_bytes())),
                why,
            ));
        }
    }
    let json = spool.document(&spool.get(&format!("{dir}/json"))?, &what)?;
    let head =
        LegacyLayer::parse(&json).map_err(|error| Error::archive(&what, error.to_string()))?;
    let id = if head.id.is_empty() {
        dir.to_owned()
    } else {
        head.id
    };
    let layer = spool.get(&format!("{dir}/layer.tar"))?;
    Ok((
        id,
        Record {
            json,
            parent: head.parent,
            layer,
        },
    ))
}

/// Layer ids and the names that `repositories` gives them.
fn tags(spool: &Spool) -> Result<Vec<(String, String)>> {
    let Some(blob) = spool.find("repositories")? else {
        return Ok(Vec::new());
    };
    let repositories: Repositories =
        serde_json::from_slice(&spool.document(&blob, "repositories")?)
            .map_err(|error| Error::archive("repositories", error.to_string()))?;
    Ok(repositories
        .into_iter()
        .flat_map(|(repository, tags)| {
            tags.into_iter()
                .map(move |(tag, id)| (id, format!("{repository}:{tag}")))
        })
        .collect())
}

fn image(
    spool: &Spool,
    records: &HashMap<String, Record>,
    id: &str,
    names: &[String],
    diff_ids: &mut HashMap<String, Digest>,
) -> Result<PlannedImage> {
    let mut chain = Vec::new();
    let mut seen = HashSet::new();
    let mut next = id;
    while !next.is_empty() {
        let what = || format!("layer \"{}\"", shown(next.as_bytes()));
        if !seen.insert(next) {
            return Err(Error::archive(what(), "it is its own ancestor"));
        }
        if chain.len() == LAYERS_MAX {
            return Err(Error::unsupported(
                what(),
                format!("it is the end of more than {LAYERS_MAX} layers"),
            ));
        }
        let record = records
            .get(next)
            .ok_or_else(|| Error::archive(what(), "it is not in the archive"))?;
        chain.push((next, record));
        next = &record.parent;
    }
    chain.reverse();
    let mut digests = Vec::with_capacity(chain.len());
    for (id, record) in &chain {
        let digest = match diff_ids.get(*id) {
            Some(known) => *known,
            None => diff_id(spool, &record.layer)?,
        };
        diff_ids.insert((*id).to_owned(), digest);
        digests.push(digest);
    }
    let jsons: Vec<&[u8]> = chain.iter().map(|(_, record)| &record.json[..]).collect();
    let bytes = config(&jsons, &digests).map_err(|error| {
        Error::archive(
            format!("layer \"{}\"", shown(id.as_bytes())),
            error.to_string(),
        )
    })?;
    let refs = names
        .iter()
        .map(|name| reference(name))
        .collect::<Result<_>>()?;
    PlannedImage::new(
        Digest::of(&bytes),
        bytes,
        chain.iter().map(|(_, record)| record.layer).collect(),
        refs,
    )
}

/// The digest of a layer's plain archive: known when it is stored plain, else found by reading it.
fn diff_id(spool: &Spool, layer: &Blob) -> Result<Digest> {
    let reading = |source| Error::Input {
        what: "a layer".to_owned(),
        source,
    };
    let (compression, mut plain) = decoder(Box::new(spool.stream(layer).0)).map_err(reading)?;
    if compression == Compression::None {
        return Ok(layer.digest);
    }
    digest_of(&mut *plain, "a layer").map(|(digest, _)| digest)
}

/// Makes the configuration of the image whose layers these are, lowest first.
fn config(jsons: &[&[u8]], digests: &[Digest]) -> serde_json::Result<Vec<u8>> {
    let mut history = Vec::with_capacity(jsons.len());
    for json in jsons {
        history.push(history_entry(&fields(json)?)?);
    }
    let mut fields = match jsons.last() {
        Some(top) => fields(top)?,
        None => BTreeMap::new(),
    };
    fields.retain(|key, _| !DROPPED.contains(&key.as_str()));
    let list = digests
        .iter()
        .map(|digest| format!("\"{digest}\""))
        .collect::<Vec<_>>()
        .join(",");
    let rootfs = format!("{{\"type\":\"layers\",\"diff_ids\":[{list}]}}");
    fields.insert("rootfs".to_owned(), RawValue::from_string(rootfs)?);
    fields.insert(
        "history".to_owned(),
        RawValue::from_string(format!("[{}]", history.join(",")))?,
    );
    let mut out = vec![b'{'];
    for (at, (key, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        compact(&serde_json::to_string(key)?, &mut out);
        out.push(b':');
        compact(value.get(), &mut out);
    }
    out.push(b'}');
    Ok(out)
}

/// A layer's fields as they stand, in the spelling of configurations.
fn fields(json: &[u8]) -> serde_json::Result<BTreeMap<String, Box<RawValue>>> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(json)?;
    if fields.contains_key("Id") && !fields.contains_key("id") {
        let mut respelled = BTreeMap::new();
        for (from, to) in SPELLINGS {
            if let Some(value) = fields.remove(from) {
                respelled.insert(to.to_owned(), value);
            }
        }
        return Ok(respelled);
    }
    Ok(fields)
}

fn history_entry(fields: &BTreeMap<String, Box<RawValue>>) -> serde_json::Result<String> {
    #[derive(Deserialize, Default)]
    struct Command {
        #[serde(rename = "Cmd")]
        cmd: Option<Vec<String>>,
    }
    let text = |key: &str| {
        fields
            .get(key)
            .and_then(|value| serde_json::from_str::<String>(value.get()).ok())
            .unwrap_or_default()
    };
    let command: Option<Command> = fields
        .get("container_config")
        .and_then(|value| serde_json::from_str(value.get()).ok());
    let created_by = command
        .and_then(|command| command.cmd)
        .unwrap_or_default()
        .join(" ");
    let created = text("created");
    let created = if created.is_empty() {
        "0001-01-01T00:00:00Z".to_owned()
    } else {
        created
    };
    let mut entry = format!("{{\"created\":{}", serde_json::to_string(&created)?);
    for (key, value) in [
        ("author", text("author")),
        ("created_by", created_by),
        ("comment", text("comment")),
    ] {
        if !value.is_empty() {
            entry.push_str(&format!(",\"{key}\":{}", serde_json::to_string(&value)?));
        }
    }
    entry.push('}');
    Ok(entry)
}

/// JSON as Go's encoder copies it: without blanks outside strings, and with what could end a script
/// element escaped.
fn compact(json: &str, out: &mut Vec<u8>) {
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes())
            }
            ' ' | '\t' | '\n' | '\r' if !in_string => {}
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(jsons: &[&str]) -> String {
        let jsons: Vec<&[u8]> = jsons.iter().map(|json| json.as_bytes()).collect();
        let digests = vec![Digest::of(b""); jsons.len()];
        String::from_utf8(config(&jsons, &digests).unwrap()).unwrap()
    }

    #[test]
    fn configurations_as_docker_makes_them() {
        let base = r##"{"id":"a","created":"2014-10-02T00:00:00.5Z","container_config":{"Cmd":["/bin/sh","-c","#(nop) ADD x"]}}"##;
        let top = r#"{ "id":"b", "parent":"a", "os":"linux", "Size": 5, "architecture":"amd64",
            "config":{"Cmd":["a < b && c"], "Env":null}, "author":"me", "docker_version":"1.9.0" }"#;
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            made(&[base, top]),
            format!(
                r##"{{"architecture":"amd64","author":"me","config":{{"Cmd":["a \u003c b \u0026\u0026 c"],"Env":null}},"docker_version":"1.9.0","history":[{{"created":"2014-10-02T00:00:00.5Z","created_by":"/bin/sh -c #(nop) ADD x"}},{{"created":"0001-01-01T00:00:00Z","author":"me"}}],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{empty}","{empty}"]}}}}"##
            )
        );
    }

    #[test]
    fn the_first_releases_spelling() {
        let inspect = r#"{"Id":"a","Parent":"","Created":"2014-06-09T00:00:00Z","ContainerConfig":{"Cmd":["x"]},"Config":{"Cmd":["sh"]},"Os":"linux","Architecture":"amd64","Size":7}"#;
        let config = made(&[inspect]);
        assert!(config.starts_with(r#"{"architecture":"amd64","config":{"Cmd":["sh"]},"container_config":{"Cmd":["x"]},"created":"#), "{config}");
        assert!(config.contains(r#""created_by":"x""#) && !config.contains("Size"));
    }

    #[test]
    fn compacting_respects_strings() {
        let mut out = Vec::new();
        compact("{ \"a b\\\" \" : [ 1 , \"\\\\\" ] }", &mut out);
        assert_eq!(out, br#"{"a b\" ":[1,"\\"]}"#);
    }
}
