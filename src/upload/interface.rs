//! The network interfaces that uploads may use: those that a setting names, in its order. Pure but for the list.

use crate::disk;

/// The kernel's list, of this process' network namespace. Unlike `/sys/class/net` it needs no mount of its own there.
const LIST: &str = "/proc/self/net/dev";
/// Largest list, in bytes: some 120 for each interface.
const LIST_LIMIT: u64 = 256 << 10;
/// Longest name (IFNAMSIZ less its end).
const NAME_LIMIT: usize = 15;

/// Whether a setting can name an interface: `eth0`, or `wlan*` for all that begin so.
pub(super) fn is_pattern(pattern: &str) -> bool {
    let name = pattern.strip_suffix('*').unwrap_or(pattern);
    let is_named = name.len() <= NAME_LIMIT && !pattern.is_empty();
    is_named && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:*".contains(&byte))
}

/// The interfaces that are there, up or not, and that `patterns` name; those of the first pattern first.
pub(super) fn there(patterns: &[String]) -> Vec<String> {
    let list = disk::read_limited(LIST.as_ref(), LIST_LIMIT).unwrap_or_default();
    named(patterns, &String::from_utf8_lossy(&list))
}

/// Those of a list such as the kernel's.
fn named(patterns: &[String], list: &str) -> Vec<String> {
    let names: Vec<&str> = list.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    let mut named: Vec<String> = Vec::new();
    for pattern in patterns {
        let fits = |name: &&&str| match pattern.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => **name == pattern,
        };
        for name in names.iter().filter(fits) {
            if !named.iter().any(|before| before == name) {
                named.push((*name).to_owned());
            }
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: &str = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs\n\
                           \x20   lo: 2776770   11307    0\n  eth0: 1215645    2751\nwlan10: 1 2\n wlan1: 3 4\n";

    #[test]
    fn the_order_is_the_settings_and_none_comes_twice() {
        let named = |patterns: &[&str]| {
            named(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>(), KERNELS)
        };
        assert_eq!(named(&["wlan*", "eth0"]), ["wlan10", "wlan1", "eth0"]);
        assert_eq!(named(&["wlan1", "*"]), ["wlan1", "lo", "eth0", "wlan10"]);
        assert_eq!(named(&["eth", "ppp*", "face |bytes"]), [""; 0]);
    }

    #[test]
    fn what_can_be_no_interface_is_no_pattern() {
        assert!(["eth0", "wlan*", "*", "enp0s31f6"].into_iter().all(is_pattern));
        assert!(!["", "a/b", "eth 0", "eth*0", "eth0:1", "abcdefghijklmnop"].into_iter().any(is_pattern));
    }
}
