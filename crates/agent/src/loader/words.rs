//! A line split into words as a shell does it (POSIX XCU 2.2, without expansions).

use super::LoadFailure;

/// The words of `line`.
///
/// # Errors
/// If a quote is not closed, or nothing follows a backslash.
pub(crate) fn split(line: &str) -> Result<Vec<String>, LoadFailure> {
    let bad = |reason| LoadFailure::Args { args: line.to_owned(), reason };
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(bad("a single quote is not closed")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(bad("a double quote is not closed")),
                        },
                        Some(c) => word.push(c),
                        None => return Err(bad("a double quote is not closed")),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(bad("nothing follows the last backslash")),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let check =
            |line: &str, expect: &[&str]| assert_eq!(split(line).unwrap(), expect, "{line}");
        check("", &[]);
        check("  -cdrom disc.iso ", &["-cdrom", "disc.iso"]);
        check(r#"a'b c'd "e \" \n" '' \ x"#, &["ab cd", "e \" \\n", "", " x"]);
        check("'a\"b' \"c'd\"", &["a\"b", "c'd"]);
    }

    #[test]
    fn what_a_shell_would_wait_for_is_refused() {
        for line in ["'a", "\"a", "\"a\\", "a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
