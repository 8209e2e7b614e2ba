//! Paths as text: brought into one form, compared with patterns. Lexical only: links are the file system's business.

/// Brings a path into one form: `./a//b/../c/` is `a/c`. What leaves the project starts with `..` or `/`.
#[must_use]
pub fn normalise(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Whether a normalised path lies in the project.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    !path.starts_with('/') && path != ".." && !path.starts_with("../")
}

/// Whether a path is a pattern.
#[must_use]
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?'])
}

/// Whether a path matches a pattern: `*` stands for any characters but `/`, `?` for one.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    // Bytes of both that are compared so far.
    let (mut p, mut t) = (0, 0);
    // Behind the last `*`, and up to where it reaches: only the last one ever needs to reach further.
    let mut star: Option<(usize, usize)> = None;
    while let Some(next) = path[t..].chars().next() {
        match pattern[p..].chars().next() {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(wanted) if wanted == next || (wanted == '?' && next != '/') => {
                p += wanted.len_utf8();
                t += next.len_utf8();
                continue;
            }
            Some(_) | None => {}
        }
        let Some((behind, reach)) = star else { return false };
        let Some(passed) = path[reach..].chars().next().filter(|passed| *passed != '/') else { return false };
        t = reach + passed.len_utf8();
        star = Some((behind, t));
        p = behind;
    }
    pattern[p..].chars().all(|wanted| wanted == '*')
}

/// Returns a path as a command sees it that runs in the folder `cwd`; both are normalised and inside the project.
#[must_use]
pub fn seen_from(cwd: &str, path: &str) -> String {
    if cwd == "." || path.starts_with('/') {
        return path.to_owned();
    }
    let depth = cwd.split('/').count();
    format!("{}{path}", "../".repeat(depth))
}

/// Returns an absolute path below one of the folders `roots`, which are normalised, as it is seen from there; `None` for
/// any other path. A template in it is kept as it is.
#[must_use]
pub fn seen_from_root(roots: &[String], path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    // What a template stands for may have several parts: `..` behind it leads anywhere.
    let path = if path.contains('{') { path.to_owned() } else { normalise(path) };
    roots.iter().find_map(|root| match path.strip_prefix(root.trim_end_matches('/'))? {
        "" => Some(".".to_owned()),
        below => below.strip_prefix('/').map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (path, normal) in [
            ("./a//b", "a/b"),
            ("a/../b/", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("a/../../b", "../b"),
            ("/a/../../b", "/b"),
            ("", "."),
        ] {
            assert_eq!(normalise(path), normal, "{path}");
        }
        assert!(is_inside("..a/b") && is_inside(".") && !is_inside("../a") && !is_inside("..") && !is_inside("/a"));
    }

    #[test]
    fn a_star_does_not_cross_a_folder() {
        assert!(matches("work/*.npz", "work/a.npz"));
        assert!(matches("work/*/m?.bin", "work/x/m1.bin"));
        assert!(matches("*a*b", "xaayab"));
        assert!(!matches("work/*.npz", "work/a/b.npz"));
        assert!(!matches("work/?", "work//"));
        assert!(!matches("a*", "ba"));
    }

    #[test]
    fn a_path_is_seen_from_the_folder_of_the_command() {
        assert_eq!(seen_from("scripts/x", "data/a"), "../../data/a");
        assert_eq!(seen_from(".", "data/a"), "data/a");
        assert_eq!(seen_from("scripts", "/data/a"), "/data/a");
    }

    #[test]
    fn a_path_below_the_project_is_seen_from_it() {
        let roots = ["/data/me/p".to_owned(), "/data/p".to_owned()];
        let seen = |path: &str| seen_from_root(&roots, path);
        assert_eq!(seen("/data/me/p/work/a").as_deref(), Some("work/a"));
        assert_eq!(seen("/data//./q/../p/a").as_deref(), Some("a"));
        assert_eq!(seen("/data/p/").as_deref(), Some("."));
        assert_eq!(seen("/data/p/{matrix.d}/../a").as_deref(), Some("{matrix.d}/../a"));
        assert_eq!((seen("/data/pq/a"), seen("/data"), seen("data/p/a")), (None, None, None));
        assert_eq!(seen_from_root(&["/".to_owned()], "/a").as_deref(), Some("a"));
    }

    /// The definition of [`matches`], exponential.
    fn matches_by_definition(pattern: &[char], path: &[char]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (['*', pattern @ ..], _) => (0..=path.len())
                .take_while(|n| !path[..*n].contains(&'/'))
                .any(|n| matches_by_definition(pattern, &path[n..])),
            ([p, pattern @ ..], [t, path @ ..]) if p == t || (*p == '?' && *t != '/') => {
                matches_by_definition(pattern, path)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_its_definition(pattern in "[aé/*?]{0,8}", path in "[aé/]{0,8}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
            prop_assert_eq!(matches(&pattern, &path), matches_by_definition(&p, &t));
        }

        #[test]
        fn normalising_twice_changes_nothing(path in "[ab./]{0,12}") {
            let normal = normalise(&path);
            prop_assert_eq!(normalise(&normal), normal);
        }
    }
}
