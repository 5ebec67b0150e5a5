//! `gramme secret`: what an operator carries from a member to a new node.

use super::{Failure, print};
use crate::identity::DataDir;
use std::io::IsTerminal;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct SecretCommand {
    /// The data directory of a member
    #[arg(long, value_name = "DIR", default_value = "./gramme-node")]
    dir: PathBuf,
}

impl SecretCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let failed =
            |why: &dyn std::fmt::Display| Failure::new(format!("secret of {}: {why}", self.dir.display()));
        let loaded = DataDir::new(&self.dir).load().map_err(|e| failed(&e))?;
        let (identity, _) = loaded.ok_or_else(|| {
            failed(&"no node lives in this directory: name one that was given to 'gramme serve --dir'")
        })?;
        print(identity.secret_text().as_bytes())?;
        let advice = if std::io::stdout().is_terminal() {
            "and write it to a file with: (umask 077; gramme secret > FILE)"
        } else {
            "its file should be readable by its owner only: chmod 600"
        };
        crate::log::line(format_args!(
            "whoever has this can read and change all data: keep it from strangers; {advice}"
        ));
        Ok(())
    }
}
