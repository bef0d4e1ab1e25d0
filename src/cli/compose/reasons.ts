/** Why keys of Compose are not taken: what there is instead, where there is something. */

const noNetwork = 'inro makes no networks; x-inro: { network: NAME } names one of the engine';
const ownHost = 'what is taken from the host is for its administrator to give';
const noLimits = 'inro sets no limits; the engine and the host do';

export const topReasons = {
  networks: noNetwork,
  configs: 'inro has secrets alone: make it one, or put it into the image',
  include: 'inro takes one file: docker compose config makes one of several',
  models: 'inro has none',
};

export const serviceReasons = {
  annotations: 'inro has labels alone',
  attach: 'inro shows no logs',
  blkio_config: noLimits,
  build: 'inro builds nothing: name an image',
  cap_add: ownHost,
  cap_drop: 'inro does not narrow capabilities',
  cgroup: ownHost,
  cgroup_parent: ownHost,
  configs: topReasons.configs,
  container_name: 'a container is called after its task',
  cpus: noLimits,
  cpu_shares: noLimits,
  credential_spec: 'inro runs no Windows',
  depends_on: 'services start by themselves, in no order: have a program wait for what it needs',
  develop: 'inro is not for developing',
  devices: ownHost,
  dns: noNetwork,
  dns_search: noNetwork,
  domainname: noNetwork,
  entrypoint: "the image's stays; command gives its arguments",
  env_file: 'write the variables under environment; what is secret belongs under secrets',
  expose: noNetwork,
  extends: 'inro takes one file: docker compose config makes one of several; or use an anchor and <<',
  external_links: noNetwork,
  extra_hosts: noNetwork,
  group_add: 'inro gives no groups; user: USER:GROUP gives one',
  healthcheck: "inro looks at whether a container runs; the image's own check is the engine's",
  hostname: 'a container is called after its task',
  init: 'inro does not choose it',
  ipc: ownHost,
  isolation: 'inro does not choose it',
  links: noNetwork,
  logging: "logs are the engine's",
  mac_address: noNetwork,
  mem_limit: noLimits,
  memswap_limit: noLimits,
  network_mode: noNetwork,
  networks: noNetwork,
  pid: ownHost,
  pids_limit: noLimits,
  platform: "nodes have theirs: deploy.placement.constraints chooses by a node's labels",
  ports: noNetwork,
  privileged: ownHost,
  profiles: 'what stands in the file is deployed',
  pull_policy: 'a node pulls an image that it does not have',
  scale: 'write deploy: { replicas: N }',
  security_opt: ownHost,
  shm_size: noLimits,
  stdin_open: 'a task has no terminal',
  sysctls: ownHost,
  tty: 'a task has no terminal',
  ulimits: noLimits,
  userns_mode: ownHost,
  uts: ownHost,
  volumes_from: 'name the volume under both services',
};

export const deployReasons = {
  endpoint_mode: noNetwork,
  resources: noLimits,
  rollback_config: 'inro goes back as it goes forward: by update_config',
};

export const secretReasons = {
  driver: 'inro has no drivers for secrets',
  driver_opts: 'inro has no drivers for secrets',
  environment:
    'a value in the environment is open to all who may look at the process: write file: /dev/fd/3, and in bash 3< <(printf %s "$NAME")',
  content: 'a value does not stand in a file beside the rest: give file: a path',
  template_driver: 'a value is served as it is',
};

export const volumeReasons = {
  driver:
    "inro names volumes, and the engine's usual driver makes them: make another one by hand, and say external: true",
  driver_opts:
    "inro names volumes, and the engine's usual driver makes them: make another one by hand, and say external: true",
  labels: 'inro names volumes, and the engine makes them: it gives them no labels',
};
