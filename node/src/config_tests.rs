use super::*;

fn collect(
    flags: &[(&'static str, &str)],
    environment: &[(&str, &str)],
    file: &str,
) -> Result<Settings, ConfigError> {
    let flags = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let look = |name: &str| {
        let dir = (name == "GRAMME_DIR").then(|| OsString::from("/nonexistent/gramme"));
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)).or(dir)
    };
    let mut settings = Settings::collect(&flags, look, None)?;
    settings.add_file(Path::new("x.toml"), file)?;
    Ok(settings)
}

fn error_of(flags: &[(&'static str, &str)]) -> String {
    let settings = collect(flags, &[], "").expect("flags are only collected");
    Config::new(&settings).expect_err("it should be refused").to_string()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "r = 3\nw = 3\nzone = 'file'\n";
    let settings =
        collect(&[("r", "1")], &[("GRAMME_R", "2"), ("GRAMME_W", "1")], file).expect("all are known");
    assert_eq!((settings.get("r"), settings.get("w"), settings.get("zone")), ("1", "1", "file"));
    let printed = settings.print();
    let line = |key: &str| {
        let start = format!("{key} = ");
        let line = printed.lines().find(|l| l.starts_with(&start)).expect("every key is printed");
        line.split("  ").filter(|part| !part.is_empty()).map(str::trim).collect::<Vec<_>>().join("|")
    };
    assert_eq!(line("r"), "r = 1|# flag");
    assert_eq!(line("w"), "w = 1|# GRAMME_W");
    assert_eq!(line("zone"), "zone = \"file\"|# x.toml");
    assert_eq!(line("weight"), "weight = 1|# default");
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let settings = collect(&[("zone", "a \"quoted\" zone"), ("insecure", "true")], &[], "").expect("known");
    let again = collect(&[], &[], &settings.print()).expect("it can be read");
    for key in KEYS.iter().filter(|key| key.name != "dir") {
        assert_eq!(again.get(key.name), settings.get(key.name), "{}", key.name);
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let error = collect(&[], &[], "advertize = 'here'").expect_err("it is misspelt").to_string();
    assert!(error.contains("no key 'advertize': the nearest is 'advertise'"), "{error}");
}

#[test]
fn a_dash_in_a_key_is_an_underscore_in_the_environment() {
    let settings = collect(&[], &[("GRAMME_VALUE_LIMIT", "1000")], "").expect("it is known");
    assert_eq!(Config::new(&settings).expect("it is in bounds").value_limit, 1000);
}

#[test]
fn beyond_this_machine_only_when_told_so() {
    let error = error_of(&[("redis", "0.0.0.0:7379")]);
    assert!(error.contains("--insecure"), "{error}");
    let error = error_of(&[("redis", "0.0.0.0:7379"), ("insecure", "true")]);
    assert!(error.contains("--advertise"), "{error}");
    let settings =
        collect(&[("redis", "0.0.0.0:7379"), ("insecure", "true"), ("advertise", "10.0.0.1")], &[], "");
    assert!(Config::new(&settings.expect("known")).is_ok());
}

#[test]
fn values_out_of_bounds_say_their_bounds_and_their_source() {
    assert!(error_of(&[("r", "0")]).contains("r is '0' (flag): give a number from 1 to 255"));
    assert!(error_of(&[("timeout", "NaN")]).contains("0.001 to 3600"));
    assert!(error_of(&[("value-limit", "99999999999")]).contains("to 33554432"));
    assert!(error_of(&[("redis", "nonsense")]).contains("a host and a port"));
    assert!(error_of(&[("advertise", "host:1234")]).contains("without a port"));
    assert!(error_of(&[("zone", &"z".repeat(65))]).contains("at most 64"));
}

#[test]
fn members_to_join_are_a_list_of_addresses() {
    let config = |list| Config::new(&collect(&[("join", list)], &[], "").expect("it is known"));
    assert_eq!(config("a:1, [::1]:2,").expect("they are addresses").join, ["a:1", "[::1]:2"]);
    assert!(config("").expect("it founds a cluster").join.is_empty());
    for wrong in ["a", "a:1,b", ":1", "a:99999", "a:1 b:2 c"] {
        assert!(error_of(&[("join", wrong)]).contains("is no address"), "{wrong}");
    }
}

#[test]
fn the_distance_is_levenshteins() {
    for (a, b, apart) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
        assert_eq!(distance(a, b), apart, "{a} {b}");
    }
}
