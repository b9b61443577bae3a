//! Tokens: what callers prove themselves by, once a password has proved them.

use std::{collections::HashMap, time::Duration};

/// How long a token is good that nobody uses.
const TTL: Duration = Duration::from_secs(300);

/// How many letters of a token are random.
const LETTERS: usize = 16;

const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The tokens of all users. They are in memory, whatever else is kept: after a restart clients
/// authenticate anew.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    tokens: HashMap<String, Token>,
    /// Counts the tokens, which end with the count as etcd's do.
    issued: u64,
}

#[derive(Debug)]
struct Token {
    user: String,
    expiry: Duration,
}

impl Tokens {
    /// Gives a user a token with these letters.
    pub(crate) fn issue(&mut self, user: &str, letters: &str, now: Duration) -> String {
        self.tokens.retain(|_, token| token.expiry > now);
        self.issued += 1;
        let text = format!("{letters}.{}", self.issued);
        let token = Token {
            user: user.to_owned(),
            expiry: now.saturating_add(TTL),
        };
        self.tokens.insert(text.clone(), token);
        text
    }

    /// Whose a token is. It is good for another five minutes then.
    pub(crate) fn user_of(&mut self, text: &str, now: Duration) -> Option<&str> {
        let token = self.tokens.get_mut(text)?;
        if token.expiry <= now {
            return None;
        }
        token.expiry = now.saturating_add(TTL);
        Some(&token.user)
    }

    /// Ends the tokens of a user.
    pub(crate) fn end(&mut self, user: &str) {
        self.tokens.retain(|_, token| token.user != user);
    }

    /// Ends all tokens.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
    }
}

/// Letters that nobody can guess.
pub(crate) fn letters() -> Result<String, getrandom::Error> {
    let count = ALPHABET.len();
    let fair = 256 - 256 % count;
    let mut letters = String::with_capacity(LETTERS);
    let mut random = [0; 2 * LETTERS];
    while letters.len() < LETTERS {
        getrandom::fill(&mut random)?;
        let drawn = random.iter().map(|&byte| usize::from(byte));
        // What is left over would favour the first letters.
        let drawn = drawn.filter(|&byte| byte < fair);
        let drawn = drawn.map(|byte| char::from(ALPHABET[byte % count]));
        letters.extend(drawn.take(LETTERS - letters.len()));
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_good_until_five_minutes_after_its_last_use() {
        let mut tokens = Tokens::default();
        let token = tokens.issue("u", "letters", at(0));
        assert_eq!(tokens.user_of(&token, at(299)), Some("u"));
        assert_eq!(tokens.user_of(&token, at(598)), Some("u"));
        assert_eq!(tokens.user_of(&token, at(898)), None);
        tokens.issue("u", "letters", at(898));
        assert_eq!(tokens.tokens.len(), 1);
    }

    #[test]
    fn the_tokens_of_a_user_end_together() {
        let mut tokens = Tokens::default();
        let [a, b] = ["a", "b"].map(|letters| tokens.issue("u", letters, at(0)));
        let other = tokens.issue("v", "c", at(0));
        tokens.end("u");
        assert_eq!(tokens.user_of(&a, at(0)), None);
        assert_eq!(tokens.user_of(&b, at(0)), None);
        assert_eq!(tokens.user_of(&other, at(0)), Some("v"));
        tokens.clear();
        assert_eq!(tokens.user_of(&other, at(0)), None);
    }

    #[test]
    fn letters_are_random() {
        let letters: Vec<String> = (0..64).map(|_| letters().expect("a system")).collect();
        assert!(letters.iter().all(|text| text.len() == LETTERS));
        assert!(
            letters
                .iter()
                .all(|it| it.bytes().all(|b| ALPHABET.contains(&b)))
        );
        let mut distinct = letters.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), letters.len());
    }
}
