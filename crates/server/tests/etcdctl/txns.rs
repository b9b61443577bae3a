//! Transactions choose, and are done whole.

use crate::support::etcdctl::{same, same_by_all};

const SCRIPT: &[&str] = &[
    "txn <<< create(\"k\") = \"0\"\n\nput k made\nget k\n\nget k\n\n",
    "txn <<< create(\"k\") = \"0\"\n\nput k made\nget k\n\nget k\n\n",
    "txn <<< \nput k again\n\n\n",
    "txn <<< mod(\"k\") = \"3\"\nver(\"k\") = \"2\"\nvalue(\"k\") = \"again\"\ncreate(\"k\") = \"2\"\n\nget k\n\n\n",
    "txn <<< mod(\"k\") > \"2\"\nver(\"k\") < \"3\"\n\nput both yes\n\nput both no\n\n",
    "txn <<< mod(\"k\") > \"2\"\nver(\"k\") < \"2\"\n\nput both yes\n\nput both no\n\n",
    "txn <<< value(\"k\") > \"aaa\"\n\nget k\n\nget both\n\n",
    "txn <<< value(\"k\") < \"aaa\"\n\nget k\n\nget both\n\n",
    "txn <<< val(\"absent\") = \"\"\n\nget k\n\nget both\n\n",
    "txn <<< lease(\"k\") = \"0\"\n\nget k\n\nget both\n\n",
    "txn <<< ver(\"absent\") = \"0\"\n\nget --prefix ''\ndel k\nget k\nput k anew\nget k\n\n\n",
    "txn <<< ver(\"k\") = \"1\"\n\ndel --prefix ''\nget --prefix ''\n\n\n",
    "txn <<< \nput k 1\nput k 2\n\n\n",
    "txn <<< \nput k 1\ndel k\nput k 2\n\n\n",
    "txn <<< \nput a 1\nput b 2\nput --prev-kv c 'three words'\n\n\n",
    "txn <<< \nput --prev-kv a 11\ndel --prev-kv b\n\n\n",
    "txn <<< \nput --lease=7 a 1\n\n\n",
    "txn <<< \nput --ignore-value a\n\n\n",
    "txn <<< \nput --ignore-value absent\n\n\n",
    "txn <<< \nget --rev=100 a\n\n\n",
    "txn <<< \nget --rev=2 k\n\n\n",
    "txn <<< \nget --prefix '' --keys-only --order=DESCEND\nget --count-only --prefix ''\n\n\n",
    "txn -w json <<< ver(\"a\") > \"0\"\n\nget a\nput d 4\ndel c\n\n\n",
    "txn -w json <<< ver(\"a\") = \"0\"\n\n\nget a\n\n",
    "txn -w fields <<< ver(\"a\") > \"0\"\n\nget a\nput d 4\ndel c\n\n\n",
    "txn --hex <<< \nget a\n\n\n",
    "txn -i <<< ver(\"a\") > \"0\"\n\nget a\n\nget b\n\n",
    "txn <<< \n\n\n\n",
    "txn <<< nonsense\n\n\n\n",
    "txn <<< weight(\"a\") = \"1\"\n\n\n\n",
    "txn <<< \nfly away\n\n\n",
    "txn nonsense",
    "get --prefix '' -w json",
];

#[tokio::test]
async fn transactions_are_told_as_by_etcd() {
    let told = same_by_all(SCRIPT).await;
    let failures = told
        .iter()
        .filter(|told| told.stdout.starts_with("FAILURE"));
    assert!(failures.count() > 3, "{told:#?}");
}

#[tokio::test]
async fn as_many_operations_as_etcd_takes() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        for count in [128, 129] {
            let puts: String = (0..count).map(|n| format!("put k{n} v\n")).collect();
            told.push(etcdctl.told(&format!("txn <<< \n{puts}\n\n")).await);
            told.push(etcdctl.told("get --prefix k --count-only -w fields").await);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn as_large_a_value_as_etcd_takes() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        for size in [1024 * 1024, 1536 * 1024 - 512, 1536 * 1024, 3 * 1024 * 1024] {
            let value = "v".repeat(size);
            let mut put = etcdctl.told(&format!("put k <<< {value}")).await;
            put.line = format!("{size} bytes");
            told.push(put);
        }
        told
    })
    .await;
}
