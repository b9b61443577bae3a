//! All recipes in one process on a real cluster under faults: the short run of `cargo xtask soak`.

mod support;

use support::proof;

#[test]
fn after_faults_every_recipe_agrees_with_the_store_and_nothing_is_left_over() {
    let faults = "kill,compact,cut-clients,pause-worker";
    let report = proof("soak", &["--minutes", "0.1", "--faults", faults]);
    // Else nothing was put to the test.
    for recipe in [
        "locks",
        "campaigns",
        "detached",
        "electors",
        "leaders",
        "ephemeral keys",
        "registrations",
        "trackers",
        "document watches",
        "field watches",
        "observers",
        "watches",
        "sessions",
        "clients",
        "health",
    ] {
        let line = report
            .lines()
            .find_map(|line| line.strip_prefix(recipe)?.strip_prefix(' '));
        let count = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        assert!(count.unwrap_or(0) > 0, "{recipe} is not in\n{report}");
    }
}
