/**
 * Who may make which call of Control: one row for each, and none that is not here. A call without a row does not compile,
 * and a manager with one does not start. What a deployer may do with which secret is decided by his grants as well.
 */
import type { OperatorRole } from '../model/operator.js';
import type { Control } from './gen/inro/v1/control_pb.js';

export interface Right {
  roles: readonly OperatorRole[];
  /** It is told to the log when it is done, and not only when it is refused. */
  changes: boolean;
  /** It takes its time: it ends when its operator does. */
  waits?: true;
  /** The field of the request that says what it is about; empty: nothing does. */
  object: string;
}

const admin = ['admin'] as const;
const deployers = ['admin', 'deployer'] as const;
const lookers = ['admin', 'auditor'] as const;
const all = ['admin', 'deployer', 'auditor'] as const;

export const controlRights = {
  getCluster: { roles: all, changes: false, object: '' },
  getStatus: { roles: lookers, changes: false, object: '' },
  getJoinToken: { roles: admin, changes: true, object: 'role' },
  rotateJoinToken: { roles: admin, changes: true, object: 'role' },
  createJoinToken: { roles: admin, changes: true, object: 'role' },
  listJoinTokens: { roles: lookers, changes: false, object: '' },
  revokeJoinToken: { roles: admin, changes: true, object: 'name' },
  listManagers: { roles: lookers, changes: false, object: '' },
  removeManager: { roles: admin, changes: true, object: 'name' },
  noteLockCall: { roles: admin, changes: false, object: '' },
  getDataKey: { roles: lookers, changes: false, object: '' },
  rotateDataKey: { roles: admin, changes: true, object: '' },
  getCa: { roles: lookers, changes: false, object: '' },
  updateCa: { roles: admin, changes: true, object: '' },
  rotateCa: { roles: admin, changes: true, object: '' },
  createOperator: { roles: admin, changes: true, object: 'name' },
  getOperator: { roles: lookers, changes: false, object: 'name' },
  listOperators: { roles: lookers, changes: false, object: '' },
  updateOperator: { roles: admin, changes: true, object: 'name' },
  revokeOperator: { roles: admin, changes: true, object: 'name' },
  removeOperator: { roles: admin, changes: true, object: 'name' },
  renewOperator: { roles: all, changes: true, object: '' },
  createSecret: { roles: admin, changes: true, object: 'name' },
  updateSecret: { roles: admin, changes: true, object: 'id' },
  removeSecret: { roles: admin, changes: true, object: 'name' },
  revokeSecret: { roles: admin, changes: true, object: 'name' },
  endStage: { roles: admin, changes: true, object: 'name' },
  rollbackSecret: { roles: admin, changes: true, object: 'name' },
  pruneSecret: { roles: admin, changes: true, object: 'name' },
  getSecret: { roles: all, changes: false, object: 'name' },
  listSecrets: { roles: all, changes: false, object: '' },
  getSecretReads: { roles: all, changes: false, object: 'name' },
  createService: { roles: deployers, changes: true, object: 'name' },
  updateService: { roles: deployers, changes: true, object: 'name' },
  removeService: { roles: deployers, changes: true, object: 'name' },
  apply: { roles: deployers, changes: true, object: '' },
  getService: { roles: all, changes: false, object: 'name' },
  listServices: { roles: all, changes: false, object: '' },
  listTasks: { roles: all, changes: false, object: 'name' },
  getNode: { roles: lookers, changes: false, object: 'name' },
  listNodes: { roles: lookers, changes: false, object: '' },
  approveNode: { roles: admin, changes: true, object: 'name' },
  updateNode: { roles: admin, changes: true, object: 'name' },
  rejectNode: { roles: admin, changes: true, object: 'name' },
  removeNode: { roles: admin, changes: true, waits: true, object: 'name' },
  clearNodeAlarm: { roles: admin, changes: true, object: 'name' },
  listAudit: { roles: lookers, changes: false, waits: true, object: '' },
  listEvents: { roles: lookers, changes: false, waits: true, object: '' },
  listReceipts: { roles: lookers, changes: false, object: 'secret' },
  wait: { roles: deployers, changes: false, waits: true, object: '' },
  waitForWipes: { roles: lookers, changes: false, waits: true, object: 'secretId' },
} as const satisfies Record<keyof (typeof Control)['method'], Right>;
