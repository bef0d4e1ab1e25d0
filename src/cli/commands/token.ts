/** inro token show|rotate worker */
import { Control } from '../../proto/gen/inro/v1/control_pb.js';
import { call } from '../../rpc/client.js';
import { withManager, type ManagerOption } from '../operator.js';
import { printJson, printLine } from '../print.js';

interface Common extends ManagerOption {
  json?: boolean;
}

export async function tokenShow(role: string, options: Common): Promise<void> {
  const { token } = await withManager(options, (manager) => call(manager, Control, 'getJoinToken', { role }));
  print(token, options);
}

export async function tokenRotate(role: string, options: Common): Promise<void> {
  const { token } = await withManager(options, (manager) =>
    call(manager, Control, 'rotateJoinToken', { role }),
  );
  print(token, options);
}

function print(token: string, { json }: Common): void {
  if (json === true) printJson({ token });
  else printLine(token);
}
