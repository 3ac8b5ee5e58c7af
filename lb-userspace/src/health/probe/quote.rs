//! What a server said, for people: escaped, and no longer than a line.

/// The longest quotation, in characters, without its marks.
const MOST_QUOTED: usize = 60;
/// The longest message of a server or a program, in characters.
const MOST_MESSAGE: usize = 100;

/// The first of these bytes, escaped, in quotation marks; an ellipsis follows if there are more. At most about 60 characters.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = byte.escape_ascii();
        if quoted.len() + escaped.len() > MOST_QUOTED + 1 || at > MOST_QUOTED {
            quoted.push('…');
            break;
        }
        quoted.extend(escaped.map(char::from));
    }
    quoted.push('"');
    quoted
}

/// The first line that is not empty, without what a terminal would obey. At most 100 characters; empty if there is no line.
pub(super) fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|&byte| byte == b'\n' || byte == b'\r').map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    // A character has at most four bytes.
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * MOST_MESSAGE)]);
    text.chars().take(MOST_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_short_is_quoted_whole_and_escaped() {
        assert_eq!(quote(b"+PONG\r\n"), "\"+PONG\\r\\n\"");
        assert_eq!(quote(b"\x00\xff"), "\"\\x00\\xff\"");
        assert_eq!(quote(b""), "\"\"");
    }

    #[test]
    fn what_is_long_is_cut_with_an_ellipsis() {
        assert_eq!(quote(&[b'a'; 61]), format!("\"{}…\"", "a".repeat(60)));
        assert_eq!(quote(&[b'a'; 60]), format!("\"{}\"", "a".repeat(60)));
    }

    #[test]
    fn a_message_is_the_first_line_that_says_something() {
        assert_eq!(first_line(b"\n  \r\n disk full \nmore"), "disk full");
        assert_eq!(first_line(b"\x1b[31mred"), " [31mred");
        assert_eq!(first_line(b""), "");
    }

    proptest! {
        #[test]
        fn quotations_are_short_printable_ascii(bytes: Vec<u8>) {
            let quoted = quote(&bytes);
            prop_assert!(quoted.chars().count() <= 63);
            prop_assert!(quoted.chars().all(|c| c.is_ascii_graphic() || c == ' ' || c == '…'));
        }

        #[test]
        fn messages_are_one_short_line(bytes: Vec<u8>) {
            let line = first_line(&bytes);
            prop_assert!(line.chars().count() <= 100);
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
