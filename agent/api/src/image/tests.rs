use super::*;
use crate::samples;

#[test]
fn listings_of_every_age() {
    let nameless = ImageSummary {
        tags: vec![],
        labels: Default::default(),
        ..samples::image_summary()
    };
    let images = [samples::image_summary(), nameless];
    for minor in [51, 42, 18, 12, 6] {
        let shown = list(&images, ApiVersion::new(1, minor));
        insta::assert_snapshot!(
            format!("images_1_{minor}"),
            serde_json::to_string_pretty(&shown).unwrap()
        );
    }
    for minor in 24..=51 {
        let shown = list(&images, ApiVersion::new(1, minor));
        serde_json::from_value::<Vec<bollard_stubs::models::ImageSummary>>(shown).unwrap();
    }
}

#[test]
fn one_image_in_every_age() {
    let image = samples::image();
    for minor in [51, 44, 21, 12, 11] {
        let shown = inspect(&image, ApiVersion::new(1, minor));
        insta::assert_snapshot!(
            format!("image_1_{minor}"),
            serde_json::to_string_pretty(&shown).unwrap()
        );
    }
    for minor in 24..=51 {
        let shown = inspect(&image, ApiVersion::new(1, minor));
        serde_json::from_value::<bollard_stubs::models::ImageInspect>(shown).unwrap();
    }
}

#[test]
fn histories_and_removals() {
    let entry = ImageHistory {
        id: "sha256:ab".into(),
        created: samples::now(),
        created_by: "CMD".into(),
        tags: vec![],
        size: 5,
        comment: "c".into(),
    };
    let shown = history(std::slice::from_ref(&entry), ApiVersion::MAX);
    serde_json::from_value::<Vec<bollard_stubs::models::ImageHistoryResponseItem>>(shown.clone())
        .unwrap();
    assert_eq!(shown[0]["Tags"], Value::Null);
    let old = history(&[entry], ApiVersion::new(1, 12));
    assert_eq!((&old[0]["Id"], old[0].get("Comment")), (&json!("ab"), None));

    let parts = [
        ImageDeleted::Untagged("a:1".into()),
        ImageDeleted::Deleted("sha256:ab".into()),
    ];
    assert_eq!(
        deleted(&parts),
        json!([{"Untagged": "a:1"}, {"Deleted": "sha256:ab"}])
    );
    let report = PruneReport {
        images: parts.to_vec(),
        reclaimed: 7,
        ..PruneReport::default()
    };
    serde_json::from_value::<bollard_stubs::models::ImagePruneResponse>(prune_body(&report))
        .unwrap();
    assert_eq!(
        prune_body(&PruneReport::default()),
        json!({"ImagesDeleted": null, "SpaceReclaimed": 0})
    );
}
