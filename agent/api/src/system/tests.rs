use super::*;
use crate::samples;

#[test]
fn info_of_every_age() {
    for minor in [51, 24, 19, 18, 12] {
        let shown = info(&samples::info(), "0.1.0", ApiVersion::new(1, minor));
        insta::assert_snapshot!(
            format!("info_1_{minor}"),
            serde_json::to_string_pretty(&shown).unwrap()
        );
    }
    for minor in 24..=51 {
        let shown = info(&samples::info(), "0.1.0", ApiVersion::new(1, minor));
        serde_json::from_value::<bollard_stubs::models::SystemInfo>(shown).unwrap();
    }
}

#[test]
fn versions_of_every_age() {
    for minor in [51, 24, 12] {
        let shown = version(
            &samples::info(),
            "0.1.0",
            "abcdef0",
            ApiVersion::new(1, minor),
        );
        insta::assert_snapshot!(
            format!("version_1_{minor}"),
            serde_json::to_string_pretty(&shown).unwrap()
        );
        serde_json::from_value::<bollard_stubs::models::SystemVersion>(shown).unwrap();
    }
}

#[test]
fn pings_tell_what_to_negotiate() {
    let headers = common_headers("0.1.0");
    assert!(headers.contains(&("Api-Version", "1.51".to_owned())));
    assert!(headers.contains(&("Server", "berth/0.1.0 (linux)".to_owned())));
    assert!(ping_headers().contains(&("Builder-Version", "1".to_owned())));
}
