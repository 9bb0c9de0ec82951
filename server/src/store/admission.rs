//! How an attestation is recorded: the decision and its outcome in one transaction.

use jiff::{SignedDuration, Timestamp};
use spire_core::clock::whole_second;
use spire_core::id::SpiffeId;

use super::database::Connection;
use super::node_rows::{Kept, WRITTEN, by_ids, link, unlink, values};
use super::packing;
use super::sql::Statement;
use super::transaction::Transaction;
use super::{Attestation, Change, KeyFingerprint, Node, Recorded, StoreError, join_tokens};

/// How long the key of an attestation may come again with evidence that counts once: a server that
/// dies after it has recorded the node does not answer it, and the node is not another one by that.
const REPEATED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// See [`super::Store::record_attestation`]. Between writers the token's row and the unique ID of
/// the node's row decide.
pub(super) async fn record(
    tx: &mut Transaction,
    attestation: &Attestation,
    now: Timestamp,
) -> Result<Recorded, StoreError> {
    let ids = std::slice::from_ref(&attestation.agent_id);
    let known = by_ids(tx.reader(), ids).await?.into_iter().next();
    if known.as_ref().is_some_and(|known| known.node.is_banned()) {
        return Ok(Recorded::Banned);
    }
    let mut is_repeated = false;
    if let Some(offered) = &attestation.join_token {
        let redemption = join_tokens::redeem(tx, offered, now).await?;
        if !redemption.admits() {
            return Ok(Recorded::Token(redemption));
        }
    } else if known.is_some() && !attestation.can_reattest {
        let (agent_id, key) = (&attestation.agent_id, attestation.key);
        is_repeated = has_just_attested(tx.reader(), agent_id, key, now).await?;
        if !is_repeated {
            return Ok(Recorded::AlreadyUsed);
        }
    }
    tx.note(Change::Node(attestation.agent_id.clone()));
    match known {
        // The time of the first one counts.
        Some(known) => {
            let now = (!is_repeated).then_some(now);
            attest_again(tx, known, attestation, now).await
        }
        None => attest_first(tx, attestation, now).await,
    }
}

/// Whether the agent has attested last for this key, a moment ago, and has not been given another
/// SVID since.
pub(super) async fn has_just_attested(
    connection: &mut Connection,
    agent_id: &SpiffeId,
    key: KeyFingerprint,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let text = "SELECT COUNT(*) FROM nodes \
                WHERE agent_id = ? AND attested_key = ? AND attested_at > ?";
    let since = now.as_second() - REPEATED_WITHIN.as_secs();
    let count = Statement::new(text).bind(agent_id.as_str()).bind(key.0).bind(since);
    Ok(connection.fetch_number(count).await? > 0)
}

async fn attest_first(
    tx: &mut Transaction,
    attestation: &Attestation,
    now: Timestamp,
) -> Result<Recorded, StoreError> {
    let node = Node {
        agent_id: attestation.agent_id.clone(),
        attestation_type: attestation.attestation_type.clone(),
        serial: attestation.serial.clone(),
        expires_at: whole_second(attestation.expires_at),
        new_serial: String::new(),
        new_expires_at: None,
        can_reattest: attestation.can_reattest,
        selectors: attestation.selectors.clone(),
        agent_version: String::new(),
    };
    let columns = [&WRITTEN[..], &["attested_key", "attested_at"]].concat();
    let mut row = values(&node);
    row.extend([attestation.key.0.into(), now.as_second().into()]);
    let numbers = tx.insert_numbered("nodes", &columns, vec![row]).await?;
    link(tx, numbers[0], &node.selectors).await?;
    Ok(Recorded::Stored(node))
}

async fn attest_again(
    tx: &mut Transaction,
    known: Kept,
    attestation: &Attestation,
    now: Option<Timestamp>,
) -> Result<Recorded, StoreError> {
    let text = "UPDATE nodes SET serial_number = ?, expires_at = ?, new_serial_number = '', \
                new_expires_at = NULL, can_reattest = ?, selectors = ?, selector_count = ?, \
                attested_key = ?, attested_at = COALESCE(?, attested_at) WHERE number = ?";
    let update = Statement::new(text)
        .bind(attestation.serial.as_str())
        .bind(attestation.expires_at.as_second())
        .bind(attestation.can_reattest)
        .bind(packing::pack(attestation.selectors.iter()))
        .bind(attestation.selectors.len() as i64)
        .bind(attestation.key.0)
        .bind(now.map(Timestamp::as_second))
        .bind(known.number);
    tx.execute(update).await?;
    if known.node.selectors != attestation.selectors {
        unlink(tx, &[(known.number, &known.node.selectors)]).await?;
        link(tx, known.number, &attestation.selectors).await?;
    }
    let node = Node {
        serial: attestation.serial.clone(),
        expires_at: whole_second(attestation.expires_at),
        new_serial: String::new(),
        new_expires_at: None,
        can_reattest: attestation.can_reattest,
        selectors: attestation.selectors.clone(),
        ..known.node
    };
    Ok(Recorded::Stored(node))
}
