//! What is shown, as a tree of boxes: each form draws the same one.

use spire_core::command::utc_time;
use spire_core::wire::cloud_server::{
    Certificate, GetAuthoritiesResponse, JwtAuthority, Slot, X509Authority,
};

/// How a box stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A heading, a root, or what is between.
    Plain,
    Active,
    Prepared,
    Old,
    Tainted,
}

/// A box and what hangs below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// Names it; the same authority has the same one wherever it stands.
    pub(super) id: String,
    /// The first line, then the others.
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    pub(super) look: Look,
    pub(super) below: Vec<Self>,
}

/// The tree of everything that a server told.
pub(super) fn of(told: &GetAuthoritiesResponse) -> Tree {
    let mut top = Tree::new("", &format!("Trust domain {}", told.trust_domain), Look::Plain);
    let others = told.other_agents;
    top.lines
        .extend((others > 0).then(|| format!("Agents with SVIDs of other authorities: {others}")));
    top.below.extend(told.roots.iter().map(|root| root_of(root, told)));
    let is_known = |id: &str| told.roots.iter().any(|root| root.id == id);
    for authority in told.x509_authorities.iter().filter(|one| !is_known(&one.root_id)) {
        // It was revoked, or has been pruned.
        let mut lost = Tree::new(&authority.root_id, "Root that is trusted no more", Look::Tainted);
        lost.lines = vec![format!("ID: {}", authority.root_id)];
        lost.place(&authority.upstream, authority);
        top.below.push(lost);
    }
    if !told.jwt_authorities.is_empty() {
        let mut keys = Tree::new("JWT keys", "Keys for JWT-SVIDs", Look::Plain);
        keys.below = told.jwt_authorities.iter().map(key).collect();
        top.below.push(keys);
    }
    top
}

fn root_of(root: &Certificate, told: &GetAuthoritiesResponse) -> Tree {
    let own = told.x509_authorities.iter().find(|authority| id_of(authority) == root.id);
    if let Some(own) = own {
        return authority(own, "Root, X.509 authority", root.tainted);
    }
    let mut tree = described("Root", root);
    for below in told.x509_authorities.iter().filter(|below| below.root_id == root.id) {
        tree.place(&below.upstream, below);
    }
    tree
}

fn id_of(authority: &X509Authority) -> &str {
    authority.certificate.as_ref().map_or("", |certificate| &certificate.id)
}

fn described(what: &str, certificate: &Certificate) -> Tree {
    let look = if certificate.tainted { Look::Tainted } else { Look::Plain };
    let mut tree = Tree::new(&certificate.id, what, look);
    tree.describe(certificate);
    tree
}

fn authority(told: &X509Authority, what: &str, tainted: bool) -> Tree {
    let mut tree = Tree::new(id_of(told), what, look(told.slot(), tainted));
    if let Some(certificate) = &told.certificate {
        tree.describe(certificate);
    }
    tree.lines.extend(next(told.prepares_next_at, told.activates_next_at));
    let plural = if told.agents == 1 { "" } else { "s" };
    tree.lines.push(format!("Signed the SVIDs of {} agent{plural}", told.agents));
    if told.slot() == Slot::Old {
        tree.lines.extend(told.agent_ids.iter().map(|id| format!("- {id}")));
        let unnamed = usize::try_from(told.agents).unwrap_or_default();
        let unnamed = unnamed.saturating_sub(told.agent_ids.len());
        tree.lines.extend((unnamed > 0).then(|| format!("- and {unnamed} more")));
    }
    tree
}

fn key(told: &JwtAuthority) -> Tree {
    let mut tree = Tree::new(&told.id, "JWT key", look(told.slot(), told.tainted));
    if told.slot() == Slot::Elsewhere {
        tree.title += " (of another server, or former)";
    }
    tree.lines = vec![format!("ID: {}", told.id)];
    if told.expires_at != 0 {
        tree.lines.push(format!("Expires at: {}", utc_time(told.expires_at)));
    }
    tree.lines.extend(next(told.prepares_next_at, told.activates_next_at));
    tree
}

fn look(slot: Slot, tainted: bool) -> Look {
    match slot {
        _ if tainted => Look::Tainted,
        Slot::Active => Look::Active,
        Slot::Prepared => Look::Prepared,
        Slot::Old => Look::Old,
        Slot::Elsewhere => Look::Plain,
    }
}

fn next(prepares_at: i64, activates_at: i64) -> Vec<String> {
    if activates_at == 0 {
        return Vec::new();
    }
    let (prepares, activates) = (utc_time(prepares_at), utc_time(activates_at));
    vec![format!("Next is prepared at: {prepares}"), format!("Next is activated at: {activates}")]
}

impl Tree {
    fn new(id: &str, title: &str, look: Look) -> Self {
        let mut title = title.to_owned();
        title += match look {
            Look::Plain => "",
            Look::Active => " (active)",
            Look::Prepared => " (prepared)",
            Look::Old => " (old)",
            Look::Tainted => " (tainted)",
        };
        Self { id: id.to_owned(), title, lines: Vec::new(), look, below: Vec::new() }
    }

    fn describe(&mut self, certificate: &Certificate) {
        self.lines.push(format!("ID: {}", certificate.id));
        self.lines.push(format!("Subject: {}", certificate.subject));
        self.lines.push(format!("Expires at: {}", utc_time(certificate.expires_at)));
    }

    /// Hangs an authority below this box, through what stands between: `upstream` begins with what
    /// signed it.
    fn place(&mut self, upstream: &[Certificate], told: &X509Authority) {
        let Some((highest, lower)) = upstream.split_last() else {
            self.below.push(authority(told, "X.509 authority", false));
            return;
        };
        let known = self.below.iter().position(|tree| tree.id == highest.id);
        let place = known.unwrap_or_else(|| {
            self.below.push(described("Upstream authority", highest));
            self.below.len() - 1
        });
        if let Some(tree) = self.below.get_mut(place) {
            tree.place(lower, told);
        }
    }

    /// The boxes with their depth, from the top down.
    pub(super) fn walk(&self) -> Vec<(usize, &Self)> {
        let mut found = vec![(0, self)];
        for tree in &self.below {
            found.extend(tree.walk().into_iter().map(|(depth, tree)| (depth + 1, tree)));
        }
        found
    }

    /// Lines for a terminal.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, "", "");
        text
    }

    fn write(&self, text: &mut String, first: &str, others: &str) {
        *text += &format!("{first}{}\n", self.title);
        let bar = if self.below.is_empty() { "  " } else { "│ " };
        for line in &self.lines {
            *text += &format!("{others}{bar}{line}\n");
        }
        let count = self.below.len();
        for (index, tree) in self.below.iter().enumerate() {
            let (branch, bar) =
                if index + 1 == count { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            tree.write(text, &format!("{others}{branch}"), &format!("{others}{bar}"));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn certificate(id: &str) -> Certificate {
        let subject = format!("CN=<{id}>");
        Certificate { id: id.to_owned(), subject, expires_at: 3600, tainted: false }
    }

    /// A server in the third place: root, upstream, and its own active and old authorities, the
    /// latter below a tainted root.
    pub(in super::super) fn sample() -> Tree {
        let authority = |slot: Slot, id: &str, root_id: &str, agents| X509Authority {
            slot: slot.into(),
            certificate: Some(certificate(id)),
            upstream: vec![certificate("up")],
            root_id: root_id.to_owned(),
            activates_next_at: if slot == Slot::Active { 60 } else { 0 },
            agents,
            agent_ids: vec!["spiffe://example.org/spire/agent/x".to_owned()],
            ..X509Authority::default()
        };
        let key = |slot: Slot, id: &str| JwtAuthority {
            slot: slot.into(),
            id: id.to_owned(),
            expires_at: 60,
            ..JwtAuthority::default()
        };
        of(&GetAuthoritiesResponse {
            trust_domain: "example.org".to_owned(),
            roots: vec![certificate("new"), Certificate { tainted: true, ..certificate("former") }],
            x509_authorities: vec![
                authority(Slot::Active, "own", "new", 7),
                authority(Slot::Old, "before", "former", 2),
            ],
            jwt_authorities: vec![key(Slot::Active, "k1"), key(Slot::Elsewhere, "k2")],
            other_agents: 0,
        })
    }

    #[test]
    fn the_text_shows_who_signed_whom() {
        let expected = "\
Trust domain example.org
├─ Root
│  │ ID: new
│  │ Subject: CN=<new>
│  │ Expires at: 1970-01-01 01:00:00 +0000 UTC
│  └─ Upstream authority
│     │ ID: up
│     │ Subject: CN=<up>
│     │ Expires at: 1970-01-01 01:00:00 +0000 UTC
│     └─ X.509 authority (active)
│          ID: own
│          Subject: CN=<own>
│          Expires at: 1970-01-01 01:00:00 +0000 UTC
│          Next is prepared at: 1970-01-01 00:00:00 +0000 UTC
│          Next is activated at: 1970-01-01 00:01:00 +0000 UTC
│          Signed the SVIDs of 7 agents
├─ Root (tainted)
│  │ ID: former
│  │ Subject: CN=<former>
│  │ Expires at: 1970-01-01 01:00:00 +0000 UTC
│  └─ Upstream authority
│     │ ID: up
│     │ Subject: CN=<up>
│     │ Expires at: 1970-01-01 01:00:00 +0000 UTC
│     └─ X.509 authority (old)
│          ID: before
│          Subject: CN=<before>
│          Expires at: 1970-01-01 01:00:00 +0000 UTC
│          Signed the SVIDs of 2 agents
│          - spiffe://example.org/spire/agent/x
│          - and 1 more
└─ Keys for JWT-SVIDs
   ├─ JWT key (active)
   │    ID: k1
   │    Expires at: 1970-01-01 00:01:00 +0000 UTC
   └─ JWT key (of another server, or former)
        ID: k2
        Expires at: 1970-01-01 00:01:00 +0000 UTC
";
        assert_eq!(sample().to_text(), expected);
    }

    #[test]
    fn a_root_of_this_server_is_one_box() {
        let own = X509Authority {
            slot: Slot::Active.into(),
            certificate: Some(certificate("own")),
            root_id: "own".to_owned(),
            ..X509Authority::default()
        };
        let told = GetAuthoritiesResponse {
            roots: vec![certificate("own")],
            x509_authorities: vec![own.clone()],
            ..GetAuthoritiesResponse::default()
        };
        let titles = |tree: &Tree| -> Vec<String> {
            tree.walk().into_iter().map(|(_, tree)| tree.title.clone()).collect()
        };
        assert_eq!(titles(&of(&told))[1..], ["Root, X.509 authority (active)"]);
        assert!(of(&told).lines.is_empty());
        let others = GetAuthoritiesResponse { other_agents: 3, ..told.clone() };
        assert_eq!(of(&others).lines, ["Agents with SVIDs of other authorities: 3"]);
        let revoked = GetAuthoritiesResponse { roots: Vec::new(), ..told };
        let expected = ["Root that is trusted no more (tainted)", "X.509 authority (active)"];
        assert_eq!(titles(&of(&revoked))[1..], expected);
    }
}
