//! Writes the table of AWS's keys that the server embeds, after a certificate in
//! `localstack-tests/data/aws-iid-certificates` was added or replaced.

use spire_localstack_tests::region_keys::{table, table_path};

fn main() -> anyhow::Result<()> {
    std::fs::write(table_path(), table()?)?;
    Ok(())
}
