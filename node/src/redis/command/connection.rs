//! Commands about the connection itself.

use super::arguments::{Options, integer, is, shown};
use super::{Next, Outcome, Refusal, Session};
use crate::redis::resp::Command;
use crate::redis::write::Version;
use crate::redis::{About, Client, REDIS_VERSION};

/// Bytes of a name that a client gives itself or its library.
const NAME_BYTES: usize = 256;

pub(super) fn ping(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    match command.get(1) {
        None => session.writer.simple("PONG"),
        Some(text) if command.len() == 2 => session.writer.bulk(text),
        Some(_) => return Err(Refusal::arity("ping")),
    }
    Ok(Next::Answered)
}

pub(super) fn echo(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    session.writer.bulk(Options::from(command, 1).value()?);
    Ok(Next::Answered)
}

pub(super) fn accepted(session: &mut Session<'_>, _: &Command<'_>) -> Outcome {
    session.writer.ok();
    Ok(Next::Answered)
}

pub(super) fn quit(session: &mut Session<'_>, _: &Command<'_>) -> Outcome {
    session.writer.ok();
    Ok(Next::Close)
}

pub(super) fn reset(session: &mut Session<'_>, _: &Command<'_>) -> Outcome {
    let mut about = session.client.about.borrow_mut();
    about.name.clear();
    about.resp = Version::Resp2.number();
    session.writer.version = Version::Resp2;
    session.writer.simple("RESET");
    Ok(Next::Answered)
}

pub(super) fn select(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    if integer(Options::from(command, 1).value()?)? != 0 {
        return Err(Refusal::new("ERR DB index is out of range: there is one database, 0"));
    }
    session.writer.ok();
    Ok(Next::Answered)
}

/// No password is set: the default user needs none, whatever is given, and there is no other.
fn check_user(user: &[u8]) -> Result<(), Refusal> {
    if user == b"default" {
        return Ok(());
    }
    Err(Refusal::new("WRONGPASS invalid username-password pair or user is disabled."))
}

pub(super) fn auth(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    match command.len() {
        2 => {
            return Err(Refusal::new(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ));
        }
        3 => check_user(Options::from(command, 1).value()?)?,
        _ => return Err(Refusal::syntax()),
    }
    session.writer.ok();
    Ok(Next::Answered)
}

pub(super) fn hello(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let mut options = Options::from(command, 1);
    let version = match options.next() {
        None => session.writer.version,
        Some(b"2") => Version::Resp2,
        Some(b"3") => Version::Resp3,
        Some(other) if crate::redis::resp::number(other).is_none() => {
            return Err(Refusal::new("ERR Protocol version is not an integer or out of range"));
        }
        Some(_) => return Err(Refusal::new("NOPROTO unsupported protocol version")),
    };
    let mut name = None;
    while let Some(word) = options.next() {
        if is(word, "AUTH") {
            let user = options.value()?;
            options.value()?;
            check_user(user)?;
        } else if is(word, "SETNAME") {
            name = Some(name_of(options.value()?)?);
        } else {
            return Err(Refusal::new(format!("ERR Syntax error in HELLO option '{}'", shown(word))));
        }
    }
    let mut about = session.client.about.borrow_mut();
    if let Some(name) = name {
        about.name = name;
    }
    about.resp = version.number();
    let out = &mut *session.writer;
    out.version = version;
    out.map(7);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"proto");
    out.integer(version.number().into());
    out.bulk(b"id");
    out.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    for (field, value) in [("mode", session.client.mode.name()), ("role", "master")] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"modules");
    out.array(0);
    Ok(Next::Answered)
}

/// A name that may stand in a list of clients: printable, without spaces, not too long.
fn name_of(text: &[u8]) -> Result<String, Refusal> {
    match std::str::from_utf8(text) {
        Ok(name) if name.len() <= NAME_BYTES && name.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(name.to_owned())
        }
        _ => Err(Refusal::new(
            "ERR Client names cannot contain spaces, newlines or special characters, nor have more than 256 bytes",
        )),
    }
}

pub(super) fn client(session: &mut Session<'_>, command: &Command<'_>) -> Outcome {
    let mut options = Options::from(command, 1);
    let what = options.value()?;
    let exactly = |count: usize| {
        let name = format!("client|{}", shown(&what.to_ascii_lowercase()));
        if command.len() == count { Ok(()) } else { Err(Refusal::arity(&name)) }
    };
    if is(what, "SETINFO") {
        exactly(4)?;
        let (field, value) = (options.value()?, name_of(options.value()?)?);
        let mut about = session.client.about.borrow_mut();
        if is(field, "LIB-NAME") {
            about.library = value;
        } else if is(field, "LIB-VER") {
            about.library_version = value;
        } else {
            return Err(Refusal::new(format!("ERR Unrecognized option '{}'", shown(field))));
        }
        session.writer.ok();
    } else if is(what, "SETNAME") {
        exactly(3)?;
        session.client.about.borrow_mut().name = name_of(options.value()?)?;
        session.writer.ok();
    } else if is(what, "GETNAME") {
        exactly(2)?;
        match session.client.about.borrow().name.as_str() {
            "" => session.writer.null(),
            name => session.writer.bulk(name.as_bytes()),
        }
    } else if is(what, "ID") {
        exactly(2)?;
        session.writer.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    } else if is(what, "INFO") {
        exactly(2)?;
        session.writer.text(&format!("{}\n", described(session.client)));
    } else if is(what, "LIST") {
        exactly(2)?;
        let clients = session.server.clients.borrow();
        let lines: String = clients.values().map(|client| described(client) + "\n").collect();
        session.writer.text(&lines);
    } else if is(what, "NO-EVICT") || is(what, "NO-TOUCH") {
        exactly(3)?;
        let setting = options.value()?;
        if !is(setting, "ON") && !is(setting, "OFF") {
            return Err(Refusal::syntax());
        }
        // Nothing is ever evicted, and reads leave no trace.
        session.writer.ok();
    } else {
        return Err(unknown_subcommand("CLIENT", what));
    }
    Ok(Next::Answered)
}

pub(super) fn unknown_subcommand(command: &str, what: &[u8]) -> Refusal {
    Refusal::new(format!("ERR unknown subcommand '{}'. Try {command} HELP.", shown(what)))
}

/// One line of `CLIENT LIST`.
fn described(client: &Client) -> String {
    let About { name, library, library_version, last_command, resp } = &*client.about.borrow();
    format!(
        "id={} addr={} laddr={} name={name} age={} db=0 cmd={last_command} user=default lib-name={library} \
         lib-ver={library_version} resp={resp}",
        client.id,
        client.address,
        client.local,
        client.since.elapsed().as_secs(),
    )
}
