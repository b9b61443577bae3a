//! Keys and transactions, with every option.

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp,
};

use crate::{Result, transcript::tell};

pub async fn run(client: &mut Client) -> Result {
    puts(client).await;
    gets(client).await;
    deletes(client).await;
    txns(client).await;
    compactions(client).await;
    Ok(())
}

async fn puts(client: &mut Client) {
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("b", "4")] {
        tell("put", client.put(key, value, None).await);
    }
    let options = || PutOptions::new();
    for (what, key, value, options) in [
        ("put with prev", "a", "5", options().with_prev_key()),
        ("put anew with prev", "d", "6", options().with_prev_key()),
        (
            "put that keeps the value",
            "a",
            "",
            options().with_ignore_value(),
        ),
        (
            "put that keeps no value",
            "x",
            "",
            options().with_ignore_value(),
        ),
        (
            "put that keeps and brings",
            "a",
            "7",
            options().with_ignore_value(),
        ),
        (
            "put that keeps the lease",
            "a",
            "8",
            options().with_ignore_lease(),
        ),
        (
            "put that keeps no lease",
            "x",
            "8",
            options().with_ignore_lease(),
        ),
        ("put under no lease", "a", "9", options().with_lease(12345)),
        ("put of no key", "", "9", options()),
    ] {
        tell(what, client.put(key, value, Some(options)).await);
    }
    let large = client.put("large", vec![b'x'; 3 << 19], None).await;
    tell("put that is too large", large);
}

async fn gets(client: &mut Client) {
    let all = || GetOptions::new().with_all_keys();
    let read = |key: &'static str, options| (key, options);
    let mut reads = vec![
        read("a", GetOptions::new()),
        read("none", GetOptions::new()),
        read("", GetOptions::new()),
        read("", all()),
        read("a", GetOptions::new().with_prefix()),
        read("b", GetOptions::new().with_from_key()),
        read("a", GetOptions::new().with_range("c")),
        read("c", GetOptions::new().with_range("a")),
        read("", all().with_limit(2)),
        read("", all().with_limit(-1)),
        read("", all().with_revision(3)),
        read("", all().with_revision(-3)),
        read("", all().with_revision(1000)),
        read("", all().with_serializable()),
        read("", all().with_keys_only()),
        read("", all().with_count_only()),
        read("", all().with_min_mod_revision(5)),
        read("", all().with_max_mod_revision(5)),
        read("", all().with_min_create_revision(4)),
        read("", all().with_max_create_revision(3).with_limit(1)),
    ];
    for target in [
        SortTarget::Create,
        SortTarget::Key,
        SortTarget::Mod,
        SortTarget::Value,
        SortTarget::Version,
    ] {
        for order in [SortOrder::Ascend, SortOrder::Descend, SortOrder::None] {
            reads.push(read("", all().with_sort(target, order).with_limit(2)));
        }
    }
    for (key, options) in reads {
        let what = format!("get {key:?} {options:?}");
        tell(&what, client.get(key, Some(options)).await);
    }
}

async fn deletes(client: &mut Client) {
    for key in ["p/1", "p/2", "p/3", "q"] {
        tell("put", client.put(key, "v", None).await);
    }
    let options = DeleteOptions::new;
    for (what, key, options) in [
        ("delete one", "p/1", options()),
        ("delete none", "p/1", options().with_prev_key()),
        (
            "delete by prefix",
            "p/",
            options().with_prefix().with_prev_key(),
        ),
        ("delete from", "q", options().with_from_key()),
        ("delete no key", "", options()),
        ("delete the wrong way", "b", options().with_range("a")),
    ] {
        tell(what, client.delete(key, Some(options)).await);
    }
}

async fn txns(client: &mut Client) {
    let get = |key: &str| TxnOp::get(key, None);
    let put = |key: &str| TxnOp::put(key, "t", Some(PutOptions::new().with_prev_key()));
    let delete = |key: &str| TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key()));
    let inner = Txn::new()
        .when([Compare::version("t", CompareOp::Greater, 0)])
        .and_then([get("t"), delete("t"), get("t")])
        .or_else([put("t"), get("t")]);
    let nested = || {
        Txn::new()
            .when([Compare::value("a", CompareOp::NotEqual, "none")])
            .and_then([get("a"), TxnOp::txn(inner.clone()), put("u"), get("u")])
            .or_else([delete("a")])
    };
    tell("a nested txn", client.txn(nested()).await);
    tell("the same again", client.txn(nested()).await);
    tell("an empty txn", client.txn(Txn::new()).await);
    let compares = [
        Compare::create_revision("a", CompareOp::Equal, 2),
        Compare::mod_revision("a", CompareOp::Less, 1000),
        Compare::version("none", CompareOp::Equal, 0),
        Compare::lease("a", CompareOp::Equal, 0),
        Compare::value("b", CompareOp::Greater, "3"),
        Compare::version("", CompareOp::Greater, 0).with_prefix(),
        Compare::version("a", CompareOp::Less, 9).with_range("z"),
    ];
    for compare in compares {
        let what = format!("a txn when {compare:?}");
        let txn = Txn::new().when([compare]).and_then([get("a")]);
        tell(&what, client.txn(txn).await);
    }
    let twice = Txn::new().and_then([put("a"), put("a")]);
    tell("a txn that puts a key twice", client.txn(twice).await);
    let both = Txn::new().and_then([put("a"), delete("a")]);
    tell("a txn that puts and deletes", client.txn(both).await);
    let many = Txn::new().and_then(vec![get("a"); 129]);
    tell("a txn of too many", client.txn(many).await);
    let none = Txn::new().and_then([get("")]);
    tell("a txn of no key", client.txn(none).await);
    let future = Txn::new().and_then([
        put("lost"),
        TxnOp::get("a", Some(GetOptions::new().with_revision(1000))),
    ]);
    tell("a txn at a future revision", client.txn(future).await);
    tell("nothing of it", client.get("lost", None).await);
}

async fn compactions(client: &mut Client) {
    let physical = || Some(CompactionOptions::new().with_physical());
    tell("compact", client.compact(5, None).await);
    tell("compact again", client.compact(5, None).await);
    tell("compact physically", client.compact(7, physical()).await);
    tell("compact the future", client.compact(1000, None).await);
    let past = GetOptions::new().with_revision(4);
    tell("get what is compacted", client.get("a", Some(past)).await);
    let kept = GetOptions::new().with_revision(7);
    tell("get what is kept", client.get("a", Some(kept)).await);
}
