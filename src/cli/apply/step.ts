/** One line of a plan. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ChangeSchema } from '../../proto/gen/inro/v1/control_pb.js';
import type { Connection } from '../../rpc/client.js';

export interface Step {
  mark: '+' | '~' | '=';
  kind: 'secret' | 'service';
  name: string;
  /** What changes, in words. */
  words: string;
  /** Reads the value, if there is one: only once it is to be done. Missing: nothing is to be done. */
  change?: (manager: Connection) => Promise<Change>;
}

export type Change = NonNullable<MessageInitShape<typeof ChangeSchema>['change']>;
