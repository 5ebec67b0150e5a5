use super::*;
use proptest::prelude::*;

/// What a stream came to, in a form that can be compared.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Command(Vec<Vec<u8>>),
    TooLarge(usize),
    Error(ProtocolError),
}

const SMALL: Limits = Limits { arguments: 8, argument: 32, refusable: 64, command: 100, inline: 48 };

/// Feeds the pieces one by one and takes out all there is after each.
fn parse<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Outcome> {
    let mut parser = Parser::new(limits);
    let mut out = Vec::new();
    for piece in pieces {
        parser.feed(piece);
        loop {
            match parser.next_command() {
                Ok(Some(Request::Command(command))) => {
                    let args: Vec<Vec<u8>> = command.iter().map(<[u8]>::to_vec).collect();
                    assert!(!args.is_empty());
                    assert_eq!(command.len(), args.len());
                    assert_eq!(command.name(), args[0]);
                    assert_eq!(command.share(args.len() - 1).unwrap(), args[args.len() - 1]);
                    assert!(command.get(args.len()).is_none() && command.share(args.len()).is_none());
                    out.push(Outcome::Command(args));
                }
                Ok(Some(Request::TooLarge { limit })) => out.push(Outcome::TooLarge(limit)),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(parser.next_command().unwrap_err(), error, "an error is for ever");
                    out.push(Outcome::Error(error));
                    return out;
                }
            }
        }
    }
    out
}

fn whole(stream: &[u8]) -> Vec<Outcome> {
    parse(SMALL, [stream])
}

fn command(args: &[&str]) -> Outcome {
    Outcome::Command(args.iter().map(|a| a.as_bytes().to_vec()).collect())
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[test]
fn a_pipeline_comes_out_in_order() {
    assert_eq!(
        whole(b"*1\r\n$4\r\nPING\r\nget a\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n"),
        [command(&["PING"]), command(&["get", "a"]), command(&["GET", ""])]
    );
}

#[test]
fn empty_arrays_and_lines_are_no_commands() {
    assert_eq!(whole(b"*0\r\n*-1\r\n\r\n  \n\nPING\r\n"), [command(&["PING"])]);
}

#[test]
fn inline_words_may_be_quoted() {
    for (line, args) in [
        (&br#"a "b c" 'd e'"#[..], &["a", "b c", "d e"][..]),
        (br#"a "\x41\n\"\q" 'it\'s \n'"#, &["a", "A\n\"q", "it's \\n"]),
        (br#"  x"y" "" ''  "#, &["xy", "", ""]),
        (br#""\xzz\x4""#, &["xzzx4"]),
    ] {
        let stream = [line, b"\r\n"].concat();
        assert_eq!(whole(&stream), [command(args)], "{}", line.escape_ascii());
    }
    for line in [&b"a \"b\n"[..], b"a 'b\n", b"\"a\"b\n", b"'a'b\n", b"\"a\\\n"] {
        assert_eq!(whole(line), [Outcome::Error(ProtocolError::Quotes)], "{}", line.escape_ascii());
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    use ProtocolError::*;
    for (stream, error) in [
        (&b"*x\r\n"[..], ArgumentCount),
        (b"*\r\n", ArgumentCount),
        (b"*+1\r\n", ArgumentCount),
        (b"*9\r\n", ArgumentCount),
        (b"*99999999999999999999\r\n", ArgumentCount),
        (b"*00000000000000000000000000000000000000000000000001\r\n", ArgumentCountLine),
        (b"*1\r\n:1\r\n", ExpectedArgument(b':')),
        (b"*1\r\n$-1\r\n", ArgumentLength),
        (b"*1\r\n$65\r\n", ArgumentLength),
        (b"*1\r\n$\r\n", ArgumentLength),
        (b"*1\r\n$4294967296\r\n", ArgumentLength),
        (b"*1\r\n$0000000000000000000000000000000000000000000001\r\n", ArgumentLengthLine),
        (b"*1\r\n$1\r\nabc", ArgumentEnd),
        (b"\0", NotACommand(0)),
        (b"\x16\x03\x01\x02", NotACommand(0x16)),
        (&[b'a'; 49], InlineLength),
    ] {
        assert_eq!(whole(stream), [Outcome::Error(error)], "{}", stream.escape_ascii());
    }
    assert_eq!(ExpectedArgument(b'\n').to_string(), "expected '$', got '\\n'");
}

#[test]
fn an_inline_line_of_just_the_limit_is_taken() {
    let stream = [&[b'a'; 48][..], b"\n"].concat();
    assert!(matches!(&whole(&stream)[..], [Outcome::Command(args)] if args[0].len() == 48));
    let stream = [&[b'a'; 49][..], b"\n"].concat();
    assert_eq!(whole(&stream), [Outcome::Error(ProtocolError::InlineLength)]);
}

#[test]
fn an_argument_beyond_the_limit_is_let_go_and_the_stream_goes_on() {
    let large = encode(&[b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 33], b"EX".to_vec()]);
    let stream = [large.as_slice(), b"*1\r\n$4\r\nPING\r\n"].concat();
    assert_eq!(whole(&stream), [Outcome::TooLarge(32), command(&["PING"])]);
    let just = encode(&[b"SET".to_vec(), vec![b'v'; 32]]);
    assert!(matches!(&whole(&just)[..], [Outcome::Command(_)]));
}

#[test]
fn a_command_beyond_the_limit_is_let_go_and_the_stream_goes_on() {
    let large = encode(&vec![vec![b'v'; 20]; 8]);
    let stream = [large.as_slice(), b"*1\r\n$4\r\nPING\r\n"].concat();
    assert_eq!(whole(&stream), [Outcome::TooLarge(100), command(&["PING"])]);
}

#[test]
fn memory_follows_what_was_received() {
    let mut parser = Parser::new(Limits::default());
    parser.feed(b"*1048576\r\n$16777216\r\n");
    assert!(parser.next_command().unwrap().is_none());
    assert!(
        parser.buffer.capacity() < 4096 && parser.spans.capacity() < 64,
        "an announcement takes no memory"
    );
    // 17 MiB are refused: what comes of them is not kept.
    let mut parser = Parser::new(Limits::default());
    parser.feed(b"*2\r\n$3\r\nSET\r\n$17825792\r\n");
    for _ in 0..17 * 16 {
        parser.feed(&[7; 65_536]);
        assert!(parser.next_command().unwrap().is_none());
        assert!(parser.buffered() <= 2 && parser.buffer.capacity() <= 65_536);
    }
    parser.feed(b"\r\nPING\r\n");
    assert!(matches!(parser.next_command(), Ok(Some(Request::TooLarge { limit: 16_777_216 }))));
    assert!(matches!(parser.next_command(), Ok(Some(Request::Command(_)))));
}

#[test]
fn numbers_span_all_of_i64_and_nothing_else() {
    for n in [0, 1, -1, 10, i64::MAX, i64::MIN] {
        assert_eq!(number(n.to_string().as_bytes()), Some(n));
    }
    for text in ["", "-", "+1", " 1", "1 ", "0x1", "9223372036854775808", "-9223372036854775809", "1.0"] {
        assert_eq!(number(text.as_bytes()), None, "{text}");
    }
}

/// Streams that are near enough to the protocol to get deep into the parser.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let args =
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..9).prop_map(|a| encode(&a));
    let inline = "[a-z \"'\\\\]{0,20}\r?\n".prop_map(String::into_bytes);
    let token = prop::sample::select(vec![
        &b"*"[..],
        b"$",
        b"\r\n",
        b"\r",
        b"\n",
        b"1",
        b"3",
        b"64",
        b"-1",
        b"PING",
        b"\"",
        b"\0",
        b"*1\r\n$33\r\n",
    ])
    .prop_map(<[u8]>::to_vec);
    let noise = prop::collection::vec(any::<u8>(), 0..8);
    let piece = prop_oneof![4 => args, 3 => inline, 2 => token, 1 => noise];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn how_the_stream_is_cut_makes_no_difference(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let at_once = whole(&stream);
        let byte_by_byte = parse(SMALL, stream.chunks(1));
        prop_assert_eq!(&byte_by_byte, &at_once);
        let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(&parse(SMALL, cuts.windows(2).map(|w| &stream[w[0]..w[1]])), &at_once);
    }

    #[test]
    fn what_was_encoded_comes_out(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..20), 0..8),
    ) {
        let stream: Vec<u8> = commands.iter().flat_map(|c| encode(c)).collect();
        let expected: Vec<Outcome> = commands.into_iter().map(Outcome::Command).collect();
        prop_assert_eq!(parse(Limits::default(), stream.chunks(7)), expected);
    }

    #[test]
    fn what_is_kept_is_bounded(stream in stream()) {
        let mut parser = Parser::new(SMALL);
        for piece in stream.chunks(5) {
            parser.feed(piece);
            while let Ok(Some(_)) = parser.next_command() {}
            prop_assert!(parser.buffered() <= SMALL.command + LENGTH_LINE + 5);
        }
    }
}
