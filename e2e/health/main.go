// Command cultivar-health says what GitOps tools make of objects: Argo CD by its health checks, and Flux by kstatus.
//
// In, on standard input: {"checks": {kind: Lua}, "objects": [object]}. Out: for each object {"health": {status, message}}
// of its kind's check, run in the Lua that Argo CD embeds with the libraries that it gives to checks, and {"kstatus":
// {status, message}} of the library itself. An object that one of them fails on has {"error": …} there.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type task struct {
	Checks  map[string]string `json:"checks"`
	Objects []map[string]any  `json:"objects"`
}

type verdict struct {
	Status  string `json:"status,omitempty"`
	Message string `json:"message,omitempty"`
	Error   string `json:"error,omitempty"`
}

type verdicts struct {
	Health  verdict `json:"health"`
	Kstatus verdict `json:"kstatus"`
}

func main() {
	var given task
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		fmt.Fprintln(os.Stderr, "cultivar-health: cannot read the objects:", err)
		os.Exit(2)
	}
	found := make([]verdicts, 0, len(given.Objects))
	for _, object := range given.Objects {
		kind, _ := object["kind"].(string)
		found = append(found, verdicts{Health: told(health(given.Checks[kind], object)), Kstatus: told(kstatus(object))})
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, "cultivar-health: cannot write the verdicts:", err)
		os.Exit(1)
	}
}

func told(found verdict, err error) verdict {
	if err != nil {
		return verdict{Error: err.Error()}
	}
	return found
}

func kstatus(object map[string]any) (verdict, error) {
	found, err := status.Compute(&unstructured.Unstructured{Object: whole(object).(map[string]any)})
	if err != nil {
		return verdict{}, err
	}
	return verdict{Status: found.Status.String(), Message: found.Message}, nil
}

// The API machinery wants whole numbers as integers, which JSON does not tell from others.
func whole(value any) any {
	switch value := value.(type) {
	case float64:
		if value == float64(int64(value)) {
			return int64(value)
		}
	case []any:
		for index := range value {
			value[index] = whole(value[index])
		}
	case map[string]any:
		for key := range value {
			value[key] = whole(value[key])
		}
	}
	return value
}

// Argo CD gives a check its base functions and tables, and a part of os that ours do without: no strings, no mathematics.
var libraries = map[string]lua.LGFunction{
	lua.LoadLibName: lua.OpenPackage,
	lua.BaseLibName: lua.OpenBase,
	lua.TabLibName:  lua.OpenTable,
}

func health(check string, object map[string]any) (verdict, error) {
	if check == "" {
		return verdict{}, errors.New("there is no check for this kind")
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range libraries {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return verdict{}, err
		}
	}
	state.SetGlobal("obj", inLua(state, object))
	if err := state.DoString(check); err != nil {
		return verdict{}, err
	}
	answer, is := state.Get(-1).(*lua.LTable)
	if !is {
		return verdict{}, fmt.Errorf("the check answers with a %s, not a table", state.Get(-1).Type())
	}
	found := verdict{Status: text(answer, "status"), Message: text(answer, "message")}
	switch found.Status {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return found, nil
	}
	return verdict{}, fmt.Errorf("%q is no health of Argo CD", found.Status)
}

func text(table *lua.LTable, field string) string {
	if value, is := table.RawGetString(field).(lua.LString); is {
		return string(value)
	}
	return ""
}

func inLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, member := range value {
			table.Append(inLua(state, member))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, member := range value {
			table.RawSetString(key, inLua(state, member))
		}
		return table
	default:
		return lua.LNil
	}
}
