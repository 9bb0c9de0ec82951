//! Text → tokens, for both syntaxes. Reads every character once.

use zeroize::Zeroizing;

use super::syntax::{MAX_TOKENS, SyntaxError};
use super::tree::Position;

/// Which of the two syntaxes is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    Hcl,
    Json,
}

#[derive(Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Text(Zeroizing<String>),
    Heredoc(Zeroizing<String>),
    Integer(String),
    Float(String),
    Boolean(bool),
    Null,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Assign,
    Colon,
    End,
}

impl Token {
    /// The token's name in the error texts of HCL 1.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Name(_) => "IDENT",
            Self::Text(_) => "STRING",
            Self::Heredoc(_) => "HEREDOC",
            Self::Integer(_) => "NUMBER",
            Self::Float(_) => "FLOAT",
            Self::Boolean(_) => "BOOL",
            Self::Null => "NULL",
            Self::LeftBrace => "LBRACE",
            Self::RightBrace => "RBRACE",
            Self::LeftBracket => "LBRACK",
            Self::RightBracket => "RBRACK",
            Self::Comma => "COMMA",
            Self::Assign => "ASSIGN",
            Self::Colon => "COLON",
            Self::End => "EOF",
        }
    }
}

pub(super) struct Lexer<'t> {
    rest: &'t str,
    at: Position,
    grammar: Grammar,
    tokens: usize,
    /// Where the first text began that runs over several lines: most likely its quote is missing.
    pub(super) long_text: Option<Position>,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str, grammar: Grammar) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        let at = Position { line: 1, column: 1 };
        Self { rest, at, grammar, tokens: 0, long_text: None }
    }

    pub(super) fn is_json(&self) -> bool {
        self.grammar == Grammar::Json
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token, Position), SyntaxError> {
        self.skip_blank()?;
        let at = self.at;
        self.tokens += 1;
        if self.tokens > MAX_TOKENS {
            return Err(SyntaxError::new(at, format!("more than {MAX_TOKENS} tokens")));
        }
        let Some(first) = self.peek() else { return Ok((Token::End, at)) };
        let token = match first {
            '{' => self.single(Token::LeftBrace),
            '}' => self.single(Token::RightBrace),
            '[' => self.single(Token::LeftBracket),
            ']' => self.single(Token::RightBracket),
            ',' => self.single(Token::Comma),
            '=' if self.grammar == Grammar::Hcl => self.single(Token::Assign),
            ':' if self.grammar == Grammar::Json => self.single(Token::Colon),
            '<' if self.grammar == Grammar::Hcl => self.heredoc(at)?,
            '"' => Token::Text(self.quoted(at)?),
            '-' | '0'..='9' => self.number(at)?,
            letter if letter.is_alphabetic() || letter == '_' => self.word(at)?,
            '\0' => return Err(SyntaxError::new(at, "unexpected null character (0x00)")),
            _ => return Err(SyntaxError::new(at, "illegal char")),
        };
        Ok((token, at))
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next()?;
        self.rest = characters.as_str();
        if character == '\n' {
            self.at = Position { line: self.at.line.saturating_add(1), column: 1 };
        } else {
            self.at.column = self.at.column.saturating_add(1);
        }
        Some(character)
    }

    fn single(&mut self, token: Token) -> Token {
        self.bump();
        token
    }

    /// Reads on while `belongs` holds.
    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        let text = self.rest;
        while self.peek().is_some_and(&belongs) {
            self.bump();
        }
        &text[..text.len() - self.rest.len()]
    }

    fn skip_blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.grammar == Grammar::Json {
                return Ok(());
            }
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.take_while(|character| character != '\n');
            } else if self.rest.starts_with("/*") {
                let at = self.at;
                self.bump();
                self.bump();
                while !self.rest.starts_with("*/") {
                    if self.bump().is_none() {
                        return Err(SyntaxError::new(at, "comment not terminated"));
                    }
                }
                self.bump();
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    fn word(&mut self, at: Position) -> Result<Token, SyntaxError> {
        let word = self.take_while(|character| {
            character.is_alphanumeric() || matches!(character, '_' | '-' | '.')
        });
        Ok(match (word, self.grammar) {
            ("true", _) => Token::Boolean(true),
            ("false", _) => Token::Boolean(false),
            ("null", Grammar::Json) => Token::Null,
            (_, Grammar::Json) => return Err(SyntaxError::new(at, "illegal char")),
            (word, Grammar::Hcl) => Token::Name(word.to_owned()),
        })
    }

    fn number(&mut self, at: Position) -> Result<Token, SyntaxError> {
        let text = self.take_while(|character| {
            character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '+')
        });
        let digits = text.strip_prefix('-').unwrap_or(text);
        let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        let whole = match hex {
            Some(hex) => !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
            None => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        };
        if whole {
            Ok(Token::Integer(text.to_owned()))
        } else if digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.parse::<f64>().is_ok()
        {
            Ok(Token::Float(text.to_owned()))
        } else {
            Err(SyntaxError::new(at, "illegal number"))
        }
    }

    /// A quoted text. `${…}` stays as written, quotes inside it included. Line breaks are
    /// accepted, since old guides break connection strings.
    fn quoted(&mut self, at: Position) -> Result<Zeroizing<String>, SyntaxError> {
        let unterminated = || SyntaxError::new(at, "literal not terminated");
        self.bump();
        let mut text = Zeroizing::new(String::new());
        let mut braces = 0_u32;
        loop {
            let place = self.at;
            let character = self.bump().ok_or_else(unterminated)?;
            match character {
                '"' if braces == 0 => break,
                '$' if braces == 0 && self.rest.starts_with('{') => {
                    self.bump();
                    braces = 1;
                    text.push_str("${");
                    continue;
                }
                '{' if braces > 0 => braces = braces.saturating_add(1),
                '}' if braces > 0 => braces -= 1,
                '\\' if braces == 0 => {
                    let escaped = self.bump().ok_or_else(unterminated)?;
                    text.push(self.escape(escaped, place)?);
                    continue;
                }
                '\n' if self.grammar == Grammar::Json => return Err(unterminated()),
                '\n' => {
                    self.long_text.get_or_insert(at);
                }
                _ => {}
            }
            text.push(character);
        }
        Ok(text)
    }

    fn escape(&mut self, escaped: char, place: Position) -> Result<char, SyntaxError> {
        let illegal = || SyntaxError::new(place, "illegal char escape");
        let code = match escaped {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            '\\' | '"' | '/' => return Ok(escaped),
            'x' => self.digits(2, 16).ok_or_else(illegal)?,
            'U' => self.digits(8, 16).ok_or_else(illegal)?,
            'u' => {
                let unit = self.digits(4, 16).ok_or_else(illegal)?;
                if !(0xd800..0xdc00).contains(&unit) || !self.rest.starts_with("\\u") {
                    unit
                } else {
                    self.bump();
                    self.bump();
                    let low = self.digits(4, 16).ok_or_else(illegal)?;
                    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400);
                    0x10000 + ((unit - 0xd800) << 10) + low.ok_or_else(illegal)?
                }
            }
            '0'..='7' => {
                let first = escaped.to_digit(8).ok_or_else(illegal)?;
                first * 64 + self.digits(2, 8).ok_or_else(illegal)?
            }
            _ => return Err(illegal()),
        };
        char::from_u32(code).ok_or_else(illegal)
    }

    fn digits(&mut self, count: u32, base: u32) -> Option<u32> {
        let mut number = 0_u32;
        for _ in 0..count {
            number = number.checked_mul(base)?.checked_add(self.peek()?.to_digit(base)?)?;
            self.bump();
        }
        Some(number)
    }

    /// `<<WORD` or `<<-WORD`, lines, and a line that holds the word alone.
    fn heredoc(&mut self, at: Position) -> Result<Token, SyntaxError> {
        if !self.rest.starts_with("<<") {
            return Err(SyntaxError::new(at, "illegal char"));
        }
        self.bump();
        self.bump();
        let outdent = self.rest.starts_with('-');
        if outdent {
            self.bump();
        }
        let word = self.line().trim_end_matches('\r');
        if word.is_empty() || !word.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        {
            return Err(SyntaxError::new(at, "heredoc must have a word after its <<"));
        }
        let mut lines = Vec::new();
        let indent = loop {
            if self.rest.is_empty() {
                return Err(SyntaxError::new(at, "heredoc not terminated"));
            }
            let line = self.line();
            let trimmed = line.trim_start();
            if trimmed.trim_end_matches('\r') == word {
                break &line[..line.len() - trimmed.len()];
            }
            lines.push(line);
        };
        let cut = outdent && lines.iter().all(|line| line.starts_with(indent));
        let mut text = Zeroizing::new(String::new());
        for line in lines {
            text.push_str(if cut { &line[indent.len()..] } else { line });
            text.push('\n');
        }
        Ok(Token::Heredoc(text))
    }

    /// The rest of the line, whose end is passed over.
    fn line(&mut self) -> &'t str {
        let line = self.take_while(|character| character != '\n');
        self.bump();
        line
    }
}
