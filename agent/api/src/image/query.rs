//! The parameters of image operations.

use berth_engine::{Error, ImageListOptions, ImportOptions, Result};
use berth_model::filters::Filters;

use crate::container::query::check;
use crate::query::Query;
use crate::version::ApiVersion;

/// What `POST /images/create` asks for.
#[derive(Debug, Clone)]
pub enum CreateImage {
    /// An image from a registry.
    Pull {
        image: String,
        tag: Option<String>,
        platform: Option<String>,
    },
    /// An image from an archive; the source is `-` (the request's body) or an address.
    Import {
        source: String,
        options: ImportOptions,
    },
}

/// `GET /images/json`. Until 1.40 `filter` was a pattern for the repository's name.
pub fn list_query(query: &Query, version: ApiVersion) -> Result<ImageListOptions> {
    let mut filters = query.filters()?;
    check(&filters, berth_engine::filters::IMAGES)?;
    filters
        .flag("dangling", false)
        .map_err(|e| Error::invalid(e.to_string()))?;
    if let Some(pattern) = query.word("filter").filter(|_| !version.at_least(41)) {
        filters.add("reference", pattern);
    }
    Ok(ImageListOptions {
        all: query.flag("all"),
        filters,
    })
}

/// `POST /images/prune`
pub fn prune_query(query: &Query) -> Result<Filters> {
    let filters = query.filters()?;
    check(&filters, berth_engine::filters::IMAGES_PRUNED)?;
    filters
        .flag("dangling", true)
        .map_err(|e| Error::invalid(e.to_string()))?;
    Ok(filters)
}

/// `POST /images/{name}/tag`: repository and tag.
pub fn tag_query(query: &Query) -> Result<(String, Option<String>)> {
    let repository = query
        .word("repo")
        .ok_or_else(|| Error::invalid("repository name must have at least one component"))?;
    Ok((repository.to_owned(), query.word("tag").map(str::to_owned)))
}

/// `GET /images/get`: the names to save.
pub fn save_names(query: &Query) -> Vec<String> {
    query
        .all("names")
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `POST /images/create`
pub fn create_query(query: &Query) -> Result<CreateImage> {
    let platform = query.word("platform").map(str::to_owned);
    let tag = query.word("tag").map(str::to_owned);
    if let Some(image) = query.word("fromImage") {
        return Ok(CreateImage::Pull {
            image: image.to_owned(),
            tag,
            platform,
        });
    }
    let source = query
        .word("fromSrc")
        .ok_or_else(|| Error::invalid("either fromImage or fromSrc is required"))?;
    let options = ImportOptions {
        repository: query.word("repo").map(str::to_owned),
        tag,
        message: query.text("message").to_owned(),
        changes: query
            .all("changes")
            .flat_map(str::lines)
            .filter(|l| !l.trim().is_empty())
            .map(str::to_owned)
            .collect(),
        platform,
    };
    Ok(CreateImage::Import {
        source: source.to_owned(),
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn listings() {
        let old = list_query(&q("filter=busy*&all=1"), ApiVersion::new(1, 12)).unwrap();
        assert!(old.all);
        assert_eq!(old.filters.get("reference").collect::<Vec<_>>(), ["busy*"]);
        assert!(
            list_query(&q("filter=busy*"), ApiVersion::MAX)
                .unwrap()
                .filters
                .is_empty()
        );
        for bad in [r#"{"nope":["x"]}"#, r#"{"dangling":["perhaps"]}"#] {
            assert!(list_query(&q(&format!("filters={bad}")), ApiVersion::MAX).is_err());
        }
        assert!(prune_query(&q("")).unwrap().is_empty());
    }

    #[test]
    fn making_images() {
        let Ok(CreateImage::Import { source, options }) = create_query(&q(
            "fromSrc=-&repo=x&tag=1&message=m&changes=CMD+a&changes=ENV+b%0AUSER+c",
        )) else {
            panic!("no import")
        };
        assert_eq!(
            (
                source.as_str(),
                options.repository.as_deref(),
                options.tag.as_deref()
            ),
            ("-", Some("x"), Some("1"))
        );
        assert_eq!(options.changes, ["CMD a", "ENV b", "USER c"]);
        let Ok(CreateImage::Pull { image, tag, .. }) =
            create_query(&q("fromImage=busybox&tag=latest"))
        else {
            panic!("no pull")
        };
        assert_eq!(
            (image.as_str(), tag.as_deref()),
            ("busybox", Some("latest"))
        );
        assert!(create_query(&q("")).is_err());
    }

    #[test]
    fn names() {
        assert_eq!(
            tag_query(&q("repo=a/b&tag=c")).unwrap(),
            ("a/b".to_owned(), Some("c".to_owned()))
        );
        assert!(tag_query(&q("tag=c")).is_err());
        assert_eq!(save_names(&q("names=a&names=b%3A1")), ["a", "b:1"]);
    }
}
