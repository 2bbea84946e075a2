import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["build/", "data/", ".venv/", "docs/"] },
  js.configs.recommended,
  {
    languageOptions: { globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      curly: ["error", "multi-line"],
      eqeqeq: "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-console": "error",
      "no-shadow": "error",
      "no-var": "error",
      "no-use-before-define": ["error", { functions: false, classes: false }],
      "no-promise-executor-return": "error",
      "no-self-compare": "error",
      "no-unmodified-loop-condition": "error",
      "no-restricted-properties": [
        "error",
        { property: "outerHTML", message: "Texts are set as text, never as HTML." },
        { property: "insertAdjacentHTML", message: "Texts are set as text, never as HTML." },
      ],
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-template": "error",
      "max-lines-per-function": ["error", { max: 60 }],
      "max-params": ["error", 6],
      "max-len": ["error", { code: 140, ignoreTemplateLiterals: true }],
      complexity: ["error", 12],
    },
  },
  {
    // NiiVue's internals have one home.
    files: ["lungseg/ui/**/*.js"],
    ignores: ["lungseg/ui/viewer/niivue_adapter.js"],
    rules: {
      "no-restricted-syntax": [
        "error",
        {
          selector: "MemberExpression[property.name=/^(nv|customSliceShader|screenSlices|leftTopWidthHeight|leftTopMM|fovMM|pan2Dxyzmm|crosshairPos)$/]",
          message: "niivue_adapter.js is the only module that knows NiiVue's internals.",
        },
      ],
    },
  },
  {
    files: ["tests/**/*.js", "eslint.config.js"],
    languageOptions: { globals: globals.node },
    rules: { "max-lines-per-function": "off", "max-len": "off" },
  },
];
