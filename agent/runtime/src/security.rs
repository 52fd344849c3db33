//! `--security-opt`: which words there are, and what they ask for.

use crate::hostfacts::HostFacts;
use crate::seccomp::profile::Profile;
use crate::spec::{RunSpec, SpecError};

/// Which system call filter is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SeccompChoice {
    /// Not named: the built-in profile, or none when privileged.
    #[default]
    Default,
    Unconfined,
    Builtin,
    /// A profile as JSON text.
    Custom(String),
}

/// The options of a container, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecurityOpts {
    pub no_new_privs: bool,
    pub seccomp: SeccompChoice,
    /// The AppArmor profile named, also `unconfined`.
    pub apparmor: Option<String>,
    /// SELinux label options, without the key.
    pub labels: Vec<String>,
    /// Neither masked nor read-only paths.
    pub systempaths_unconfined: bool,
    pub writable_cgroups: bool,
}

impl SecurityOpts {
    /// Parses the options as typed; `=` separates, or the `:` of old.
    pub fn parse(options: &[String]) -> Result<Self, SpecError> {
        let mut parsed = Self::default();
        for option in options {
            match option.as_str() {
                "no-new-privileges" => {
                    parsed.no_new_privs = true;
                    continue;
                }
                "disable" => {
                    parsed.labels.push("disable".to_owned());
                    continue;
                }
                _ => {}
            }
            let Some((key, value)) = option.split_once('=').or_else(|| option.split_once(':'))
            else {
                return Err(SpecError::invalid(format!(
                    "invalid --security-opt 1: {option:?}"
                )));
            };
            let wrong = || SpecError::invalid(format!("invalid --security-opt 2: {option:?}"));
            let truth = || match value {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(wrong()),
            };
            match key {
                "no-new-privileges" => parsed.no_new_privs = truth()?,
                "writable-cgroups" => parsed.writable_cgroups = truth()?,
                "seccomp" => {
                    parsed.seccomp = match value {
                        "unconfined" => SeccompChoice::Unconfined,
                        "builtin" => SeccompChoice::Builtin,
                        // Parsed here, so that a bad one is refused at create and never means "no profile".
                        text => {
                            Profile::parse(text)
                                .map_err(|error| SpecError::invalid(error.to_string()))?;
                            SeccompChoice::Custom(text.to_owned())
                        }
                    }
                }
                "apparmor" => parsed.apparmor = Some(value.to_owned()),
                "label" => parsed.labels.push(value.to_owned()),
                "systempaths" if value == "unconfined" => parsed.systempaths_unconfined = true,
                _ => return Err(wrong()),
            }
        }
        Ok(parsed)
    }

    /// Refuses what this host or this version cannot give; the warnings are sentences for the user.
    pub(crate) fn check(
        &self,
        spec: &RunSpec,
        facts: &HostFacts,
    ) -> Result<Vec<String>, SpecError> {
        let mut warnings = Vec::new();
        match self.apparmor.as_deref() {
            None | Some("" | "unconfined") => {}
            Some(name) if !facts.apparmor => {
                return Err(SpecError::invalid(format!(
                    "apparmor profile {name:?}: config provided but apparmor not supported"
                )));
            }
            Some("default" | "docker-default") => warnings.push(
                "AppArmor profiles are not supported yet: the container runs without one"
                    .to_owned(),
            ),
            Some(name) => {
                return Err(SpecError::unsupported(format!(
                    "apparmor profile {name:?} is not supported yet"
                )));
            }
        }
        if self.labels.iter().any(|label| label != "disable") {
            warnings
                .push("SELinux support is not enabled: label options have no effect".to_owned());
        }
        let filter_wanted = match self.seccomp {
            SeccompChoice::Default => !spec.privileged,
            SeccompChoice::Unconfined => false,
            SeccompChoice::Builtin | SeccompChoice::Custom(_) => true,
        };
        if filter_wanted && !facts.seccomp {
            if self.seccomp != SeccompChoice::Default {
                return Err(SpecError::invalid(
                    "seccomp is not enabled in your kernel, cannot run a custom seccomp profile",
                ));
            }
            warnings.push(
                "seccomp is not enabled in your kernel: the container runs without a filter"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<SecurityOpts, SpecError> {
        SecurityOpts::parse(&options.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn known_options() {
        assert!(parse(&["no-new-privileges"]).expect("valid").no_new_privs);
        assert!(
            parse(&["no-new-privileges:true"])
                .expect("valid")
                .no_new_privs
        );
        assert!(
            parse(&["no-new-privileges=true"])
                .expect("valid")
                .no_new_privs
        );
        assert!(
            !parse(&["no-new-privileges", "no-new-privileges=false"])
                .expect("valid")
                .no_new_privs
        );
        assert_eq!(
            parse(&["seccomp=unconfined"]).expect("valid").seccomp,
            SeccompChoice::Unconfined
        );
        assert_eq!(
            parse(&["seccomp:unconfined"]).expect("valid").seccomp,
            SeccompChoice::Unconfined
        );
        assert_eq!(
            parse(&["seccomp=builtin"]).expect("valid").seccomp,
            SeccompChoice::Builtin
        );
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
        assert_eq!(
            parse(&[&format!("seccomp={profile}")])
                .expect("valid")
                .seccomp,
            SeccompChoice::Custom(profile.to_owned())
        );
        assert!(
            parse(&["systempaths=unconfined"])
                .expect("valid")
                .systempaths_unconfined
        );
        assert_eq!(
            parse(&["label:disable", "disable"]).expect("valid").labels,
            ["disable", "disable"]
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for option in [
            "no-new-privileges=yes",
            "no-new-privileges:1",
            "nonsense",
            "nonsense=1",
            "systempaths=all",
            "seccomp=",
            "seccomp=/etc/profile.json",
            "seccomp={",
            "seccomp={\"defaultAction\":\"SCMP_ACT_FLY\"}",
            "",
        ] {
            assert!(parse(&[option]).is_err(), "{option}");
        }
        assert_eq!(
            parse(&["foo"]),
            Err(SpecError::invalid("invalid --security-opt 1: \"foo\""))
        );
        assert_eq!(
            parse(&["foo=bar"]),
            Err(SpecError::invalid("invalid --security-opt 2: \"foo=bar\""))
        );
    }

    #[test]
    fn apparmor_is_never_silently_left_out() {
        let with = |name: &str, apparmor: bool| {
            let facts = HostFacts {
                apparmor,
                ..HostFacts::sample()
            };
            parse(&[&format!("apparmor={name}")])
                .expect("valid")
                .check(&RunSpec::default(), &facts)
        };
        assert_eq!(with("unconfined", false), Ok(Vec::new()));
        assert_eq!(with("unconfined", true), Ok(Vec::new()));
        assert!(matches!(
            with("docker-default", false),
            Err(SpecError::Invalid(_))
        ));
        assert!(matches!(with("mine", false), Err(SpecError::Invalid(_))));
        assert!(matches!(with("mine", true), Err(SpecError::Unsupported(_))));
        assert_eq!(with("docker-default", true).expect("a warning").len(), 1);
    }

    #[test]
    fn no_filter_in_the_kernel() {
        let facts = HostFacts {
            seccomp: false,
            ..HostFacts::sample()
        };
        let check = |options: &[&str], privileged| {
            parse(options).expect("valid").check(
                &RunSpec {
                    privileged,
                    ..RunSpec::default()
                },
                &facts,
            )
        };
        assert_eq!(check(&[], false).expect("a warning").len(), 1);
        assert_eq!(check(&[], true), Ok(Vec::new()));
        assert!(check(&["seccomp=builtin"], true).is_err());
    }
}
