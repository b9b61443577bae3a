//! How one text differs from another, for people.

/// The lines of a unified diff: one part, from the first line that differs to the last, with what stands
/// around it. None if nothing differs.
pub(super) fn unified(path: &str, old: Option<&str>, new: &str) -> Vec<String> {
    /// How many lines around it are shown.
    const AROUND: usize = 3;

    if old == Some(new) {
        return Vec::new();
    }
    let from = old.map_or("/dev/null", |_| path);
    let old: Vec<_> = old.unwrap_or_default().split_inclusive('\n').collect();
    let new: Vec<_> = new.split_inclusive('\n').collect();
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let tails = old[head..].iter().rev().zip(new[head..].iter().rev());
    let tail = tails.take_while(same).count();
    let start = head.saturating_sub(AROUND);
    let after = tail.min(AROUND);
    let span = |lines: &[&str]| {
        let count = lines.len() - tail + after - start;
        // Of no lines, the number is that of the line before.
        let first = if count == 0 { start } else { start + 1 };
        format!("{first},{count}")
    };
    let mut diff = vec![
        format!("--- {from}"),
        format!("+++ {path}"),
        format!("@@ -{} +{} @@", span(&old), span(&new)),
    ];
    let mut show = |mark: char, lines: &[&str]| {
        for line in lines {
            let text = line.strip_suffix('\n');
            diff.push(format!("{mark}{}", text.unwrap_or(line)));
            if text.is_none() {
                diff.push("\\ No newline at end of file".to_owned());
            }
        }
    };
    show(' ', &old[start..head]);
    show('-', &old[head..old.len() - tail]);
    show('+', &new[head..new.len() - tail]);
    let end = new.len() - tail;
    show(' ', &new[end..end + after]);
    diff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown_and_what_stands_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n";
        let expected = [
            "--- f",
            "+++ f",
            "@@ -2,7 +2,7 @@",
            " 2",
            " 3",
            " 4",
            "-5",
            "+five",
            " 6",
            " 7",
            " 8",
        ];
        assert_eq!(unified("f", Some(old), new), expected);
        assert_eq!(unified("f", Some(old), old), Vec::<String>::new());
        let added = [
            "--- /dev/null",
            "+++ f",
            "@@ -0,0 +1,1 @@",
            "+a",
            "\\ No newline at end of file",
        ];
        assert_eq!(unified("f", None, "a"), added);
        let doubled = ["--- f", "+++ f", "@@ -1,1 +1,2 @@", " a", "+a"];
        assert_eq!(unified("f", Some("a\n"), "a\na\n"), doubled);
    }
}
