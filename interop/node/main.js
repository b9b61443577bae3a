// Asks an etcd v3 endpoint by the client `etcd3` of Node, and prints the answers.
//
// usage: main.js ENDPOINT VERSION

const { Etcd3, isRecoverableError } = require('etcd3');

// What every store has of its own.
const MASKED = new Set(['cluster_id', 'member_id', 'raft_term']);

function tell(what, answer) {
  const text = JSON.stringify(answer, (name, value) => {
    if (MASKED.has(name)) return '?';
    return value && value.type === 'Buffer' ? Buffer.from(value.data).toString() : value;
  });
  console.log(`${what}: ${text}`);
}

async function attempt(what, call) {
  try {
    tell(what, await call());
  } catch (error) {
    tell(what, `${error.constructor.name}: ${error.message}, ${isRecoverableError(error)}`);
  }
}

async function keys(client) {
  await attempt('put', () => client.put('a').value('1'));
  await attempt('put with prev', () => client.put('a').value('2').getPrevious());
  for (const number of [0, 1, 2]) await client.put(`p/${number}`).value(`${9 - number}`);
  await attempt('get', () => client.get('a').exec());
  await attempt('get none', () => client.get('none').string());
  await attempt('get all', () => client.getAll().prefix('p/').strings());
  await attempt('get at a revision', () => client.get('a').revision(2).exec());
  await attempt('get the future', () => client.get('a').revision(1000).exec());
  for (const target of ['Key', 'Version', 'Create', 'Mod', 'Value']) {
    for (const order of ['None', 'Ascend', 'Descend']) {
      await attempt(`sorted by ${target}, ${order}`, () =>
        client.getAll().prefix('p/').sort(target, order).limit(2).exec());
    }
  }
  await attempt('count', () => client.getAll().prefix('p/').count());
  await attempt('keys', () => client.getAll().prefix('p/').keys());
  await attempt('put what is there', () => client.put('none').touch());
  await attempt('transaction', () =>
    client.if('a', 'Value', '==', '2').and('a', 'Version', '>', 0)
      .then(client.put('t').value('yes'), client.get('t')).else(client.delete().key('a')).commit());
  await attempt('delete', () => client.delete().key('p/0').getPrevious());
  await attempt('delete all', () => client.delete().prefix('p/').exec());
  await attempt('empty key', () => client.put('').value('x'));
}

async function watches(client) {
  const watcher = await client.watch().key('w').withPreviousKV().create();
  const events = [];
  const seen = new Promise((resolve) => {
    watcher.on('data', (data) => {
      events.push(...data.events.map(({ type, kv, prev_kv }) => ({ type, kv, prev_kv })));
      if (events.length >= 3) resolve();
    });
  });
  await client.put('w').value('1');
  await client.put('w').value('2');
  await client.delete().key('w');
  await seen;
  tell('events', events);
  await watcher.cancel();
}

async function leases(client) {
  const lease = client.lease(600);
  await lease.put('l').value('v');
  const left = await client.leaseClient.leaseTimeToLive({ ID: await lease.grant(), keys: true });
  tell('lease', [left.grantedTTL, left.keys]);
  const alive = await lease.keepaliveOnce();
  tell('keepalive', alive.TTL);
  await lease.revoke();
  await attempt('its key', () => client.get('l').string());
}

async function recipes(client) {
  await attempt('lock', () => client.lock('lock').ttl(60).do(async () => 'held'));
  const other = client.lock('lock').ttl(60);
  await other.acquire();
  await attempt('lock held', () => client.lock('lock').ttl(60).acquire());
  await other.release();
  const election = client.election('election', 60);
  const campaign = election.campaign('first');
  await campaign.wait();
  tell('leader', await election.leader());
  await campaign.resign();
  tell('no leader', (await election.leader()) === undefined);
}

async function users(client) {
  const role = client.role('reader');
  await attempt('role', () => role.create().then(() => 'made'));
  await attempt('role again', () => role.create());
  await attempt('grant', () => role.grant({ permission: 'Read', range: { start: Buffer.from('p/'), end: Buffer.from('p0') } }).then(() => 'granted'));
  await attempt('permissions', () => role.permissions());
  const user = client.user('alice');
  await attempt('user', () => user.create('secret').then(() => 'made'));
  await attempt('add role', () => user.addRole('reader').then(() => 'added'));
  await attempt('roles', async () => (await user.roles()).map((it) => it.name));
  await attempt('delete user', () => user.delete().then(() => 'deleted'));
  await attempt('delete user again', () => user.delete());
  await attempt('delete role', () => role.delete().then(() => 'deleted'));
}

async function main() {
  const client = new Etcd3({ hosts: process.argv[2] });
  await keys(client);
  await watches(client);
  await leases(client);
  await recipes(client);
  await users(client);
  client.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
