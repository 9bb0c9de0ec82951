//! What the registry costs: `cargo bench -p spire-server --bench registry`.
//!
//! Each agent may serve 100 entries: half are below its own ID, half below an alias of its own. All
//! nodes and all aliases share the selectors of account and region; one selector of ten tells them
//! apart. Entries come in random order, as after years of operation, and whoever asks is random
//! too, so that little of what is read lies in a processor's cache.

use std::fmt;
use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use jiff::Timestamp;
use spire_core::entry::{Entry, EntryId};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::selector::{RequiredSelectors, Selector};
use spire_server::registry::{Draft, EntryRef, Registry};
use spire_server::store::Node;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES_PER_AGENT: u32 = 100;

/// Set for a process of its own that only builds: memory that others freed would hide what it takes.
const BUILD_ONLY: &str = "REGISTRY_BENCH_AGENTS";

fn main() {
    if let Ok(agents) = std::env::var(BUILD_ONLY) {
        return build(&Fleet { agents: agents.parse().expect("a number") });
    }
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for agents in [100, 1_000, 10_000] {
        let own = std::env::current_exe().expect("Linux");
        let built = Command::new(own).env(BUILD_ONLY, agents.to_string()).status();
        assert!(built.expect("this program runs").success());
        measure(&mut criterion, &Fleet { agents });
    }
    criterion.final_summary();
}

fn build(fleet: &Fleet) {
    let before = resident_bytes();
    let (mut draft, spent) = fleet.draft();
    let snapshot = draft.snapshot();
    let bytes = (resident_bytes() - before) / snapshot.entry_count();
    println!("registry/build/{fleet}: {spent:.2?}, {bytes} bytes an entry");
}

fn measure(criterion: &mut Criterion, fleet: &Fleet) {
    let mut random = Random(1);
    let (mut draft, _) = fleet.draft();
    let registry = Registry::showing(draft.snapshot());
    let agents: Vec<SpiffeId> = (0..fleet.agents).map(agent_id).collect();

    let mut group = criterion.benchmark_group("registry");
    let mut bench = |name: &str, routine: &mut dyn FnMut(&mut Random)| {
        group.bench_function(BenchmarkId::new(name, fleet), |bencher| {
            bencher.iter(|| routine(&mut random));
        });
    };
    bench("authorized set of 100, revisions read", &mut |random| {
        let snapshot = registry.snapshot();
        let entries = snapshot.authorized(random.of(&agents));
        assert_eq!(entries.len(), ENTRIES_PER_AGENT as usize);
        for entry in entries {
            black_box((entry.revision_number(), entry.created_second()));
        }
    });
    let versions: Vec<_> = agents.iter().map(|id| registry.snapshot().version(id)).collect();
    bench("unchanged sync", &mut |random| {
        let at = random.below(fleet.agents) as usize;
        assert_eq!(registry.snapshot().version(&agents[at]), versions[at]);
    });
    let ids: Vec<EntryId> = (0..10_000).map(entry_id).collect();
    let find = |random: &mut Random, use_it: fn(EntryRef<'_>)| {
        let number = random.below(10_000);
        let agent = &agents[fleet.agent_of(number)];
        let snapshot = registry.snapshot();
        let entry = snapshot.authorized_entry(agent, &ids[number as usize]);
        use_it(entry.expect("it is the agent's"));
    };
    bench("one authorized entry found", &mut |random| find(random, |entry| _ = black_box(entry)));
    bench("one authorized entry found and read", &mut |random| {
        find(random, |entry| _ = black_box(entry.to_entry()));
    });
    bench("node", &mut |random| {
        let snapshot = registry.snapshot();
        black_box(snapshot.node(random.of(&agents)).expect("it is attested").serial().len());
    });
    let mut updated: Vec<Entry> = (0..10_000).map(|number| fleet.entry(number)).collect();
    bench("one entry updated", &mut |random| {
        let entry = &mut updated[random.below(10_000) as usize];
        entry.revision_number += 1;
        draft.put_entry(entry);
        registry.publish(draft.snapshot());
    });
    bench("one entry deleted, one created", &mut |random| {
        let entry = random.of(&updated);
        draft.remove_entry(&entry.id);
        draft.put_entry(entry);
        registry.publish(draft.snapshot());
    });
    let mut shared = fleet.alias(0);
    bench("one alias with shared selectors updated", &mut |_| {
        shared.revision_number += 1;
        draft.put_entry(&shared);
        registry.publish(draft.snapshot());
    });
    bench("one node updated", &mut |random| {
        let agent = random.below(fleet.agents);
        draft.put_node(&Node { serial: random.next().to_string(), ..node(agent) });
        registry.publish(draft.snapshot());
    });
    group.finish();
}

struct Fleet {
    agents: u32,
}

impl fmt::Display for Fleet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} entries, {} agents", self.entries(), self.agents)
    }
}

impl Fleet {
    /// Entries that agents may serve; aliases come on top.
    fn entries(&self) -> u32 {
        self.agents * ENTRIES_PER_AGENT
    }

    /// Everything, and the time it took without making the entries.
    fn draft(&self) -> (Draft, Duration) {
        let mut draft = Draft::new(trust_domain());
        let mut spent = Duration::ZERO;
        let mut number = 0;
        while number < self.entries() {
            let batch: Vec<Entry> =
                (number..number + 1000).map(|number| self.entry(number)).collect();
            spent += timed(|| batch.iter().for_each(|entry| draft.put_entry(entry)));
            number += 1000;
        }
        for agent in 0..self.agents {
            let (alias, node) = (self.alias(agent), node(agent));
            spent += timed(|| draft.put_entry(&alias));
            spent += timed(|| draft.put_node(&node));
        }
        (draft, spent)
    }

    /// Whose entry has that number: neighbours belong to agents far from each other.
    fn agent_of(&self, number: u32) -> usize {
        let scattered = u64::from(number % self.agents) * 7_919 % u64::from(self.agents);
        scattered as usize
    }

    fn entry(&self, number: u32) -> Entry {
        let agent = self.agent_of(number) as u32;
        let below_alias = (number / self.agents).is_multiple_of(2);
        let parent_id = if below_alias { alias_id(agent) } else { agent_id(agent) };
        let namespace = number % 997;
        let spiffe_id = format!("/ns/namespace-{namespace}/sa/service-{number}");
        let asked = [
            Selector::new("k8s", &format!("ns:namespace-{namespace}")),
            Selector::new("k8s", &format!("sa:service-{number}")),
        ];
        Entry {
            id: entry_id(number),
            spiffe_id: trust_domain().member(&spiffe_id).expect("a path"),
            parent_id,
            selectors: required(asked.map(|selector| selector.expect("a selector"))),
            x509_svid_ttl: 3600,
            jwt_svid_ttl: 300,
            federates_with: Default::default(),
            dns_names: Vec::new(),
            admin: false,
            downstream: false,
            store_svid: false,
            expires_at: None,
            hint: Default::default(),
            revision_number: 0,
            created_at: Timestamp::from_second(1_700_000_000).expect("a time"),
            attributes: None,
        }
    }

    fn alias(&self, agent: u32) -> Entry {
        let [account, region, .., own] = node_selectors(agent);
        Entry {
            id: format!("alias-{agent}").parse().expect("an id"),
            spiffe_id: alias_id(agent),
            parent_id: trust_domain().member("/spire/server").expect("a path"),
            selectors: required([account, region, own]),
            ..self.entry(0)
        }
    }
}

fn node(agent: u32) -> Node {
    Node {
        agent_id: agent_id(agent),
        attestation_type: "aws_iid".to_owned(),
        serial: format!("2861946378297562981234567890{agent:010}"),
        expires_at: Timestamp::from_second(1_800_000_000).expect("a time"),
        new_serial: String::new(),
        new_expires_at: None,
        can_reattest: false,
        selectors: node_selectors(agent).into_iter().collect(),
        agent_version: "1.15.0".to_owned(),
    }
}

fn node_selectors(agent: u32) -> [Selector; 10] {
    let group = agent % 20;
    [
        "account:123456789012".to_owned(),
        "region:eu-central-1".to_owned(),
        "tag:environment:production".to_owned(),
        format!("az:eu-central-1{}", ["a", "b", "c"][agent as usize % 3]),
        format!("sg:id:sg-0123456789{group:07}"),
        format!("sg:name:group-{group}"),
        format!("iamrole:arn:aws:iam::123456789012:role/role-{group}"),
        format!("image:id:ami-0123456789{:07}", agent % 7),
        format!("tag:team:team-{}", agent % 50),
        format!("instance:id:i-0123456789{agent:07}"),
    ]
    .map(|value| Selector::new("aws_iid", &value).expect("a selector"))
}

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("production.example.org").expect("a name")
}

fn agent_id(agent: u32) -> SpiffeId {
    let path = format!("/spire/agent/aws_iid/123456789012/eu-central-1/i-0123456789{agent:07}");
    trust_domain().member(&path).expect("a path")
}

fn alias_id(agent: u32) -> SpiffeId {
    trust_domain().member(&format!("/node/{agent}")).expect("a path")
}

fn entry_id(number: u32) -> EntryId {
    let mut random = Random(u64::from(number));
    let uuid = uuid::Uuid::from_u64_pair(random.next(), random.next());
    uuid.to_string().parse().expect("an id")
}

fn required<const N: usize>(selectors: [Selector; N]) -> RequiredSelectors {
    RequiredSelectors::new(selectors).expect("some")
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Memory that this process has in use, from the kernel.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kibibytes = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
    kibibytes * 1024
}

/// SplitMix64: enough to scatter what is asked for, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u32) as usize]
    }
}
