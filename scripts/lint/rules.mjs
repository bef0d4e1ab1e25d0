/** The rules of this house that oxlint has no rule for (a plugin of oxlint; see .oxlintrc.json). */

const noAmbientDate = {
  create(context) {
    const report = (node) => {
      if (node.callee.type === 'Identifier' && node.callee.name === 'Date' && node.arguments.length === 0) {
        context.report({ node, message: 'The present comes in as a Clock (model/clock.ts).' });
      }
    };
    return { NewExpression: report, CallExpression: report };
  },
};

/** `import('...').Name` as a type would go round no-restricted-imports. */
const noImportType = {
  create(context) {
    return {
      TSImportType(node) {
        context.report({ node, message: 'Write `import type { Name } from` at the top of the file.' });
      },
    };
  },
};

export default {
  meta: { name: 'inro' },
  rules: { 'no-ambient-date': noAmbientDate, 'no-import-type': noImportType },
};
